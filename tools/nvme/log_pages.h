// Log pages (§5.14.1): the error log, SMART / health, firmware slots, and commands supported and
// effects; and the counters that feed them.
#pragma once

#include <chrono>
#include <deque>
#include <vector>

#include "tools/nvme/identify.h"
#include "tools/nvme/state.h"

namespace outboard::nvme {

// What the controller did since it was started; SMART reports some, the exit line all.
struct Counters {
  std::array<u64, 256> admin{};  // completed, by opcode
  std::array<u64, 256> io{};
  u64 errors = 0;      // completions with a status other than success
  u64 bytes_read = 0;  // by the host, from namespaces
  u64 bytes_written = 0;
  u64 media_errors = 0;
  u64 enables = 0;          // CC.EN 0 to 1
  u64 disables = 0;         // CC.EN 1 to 0
  u64 device_resets = 0;    // DEVICE_RESET, function-level reset
  u64 shutdowns = 0;        // orderly ones
  u64 interrupts = 0;       // messages and pin assertions
  u64 doorbell_polls = 0;   // turns that looked at the doorbells
  u64 doorbell_writes = 0;  // trapped
  u64 doorbell_wakes = 0;   // eventfds of doorbells found signalled
  u64 bounced = 0;          // transfers that could not go straight to guest memory
};

class LogPages {
 public:
  LogPages(const Identity& identity, const Counters& counters, const FeatureValues& features);

  void reset();  // a controller reset clears the error log

  // Adds an entry of the error log (§5.14.1.1). `lba` is that of an I/O command, else 0.
  void add_error(u16 sq, const Command& command, u16 status_field, u64 lba);

  // §5.14.1.2 byte 0.
  u8 critical_warning() const;

  // The bytes of a page, whole; empty when there is no such page.
  std::vector<std::byte> page(LogId id) const;

 private:
  struct ErrorEntry {
    u64 count;
    u16 sq;
    u16 command_id;
    u16 status;
    u64 lba;
    u32 nsid;
  };

  std::vector<std::byte> error() const;
  std::vector<std::byte> smart() const;
  std::vector<std::byte> firmware() const;
  std::vector<std::byte> effects() const;

  const Identity& identity_;
  const Counters& counters_;
  const FeatureValues& features_;
  std::deque<ErrorEntry> errors_;  // newest first, at most identity_.error_entries
  u64 error_count_ = 0;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace outboard::nvme
