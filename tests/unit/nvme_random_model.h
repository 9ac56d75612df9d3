// What a random command must do, decided while it is made: the generator builds a command, breaks
// at most one thing in it, and says which status and which bytes must follow. Independent of the
// controller's own parsing.
#pragma once

#include <random>

#include "tests/unit/nvme_guest.h"

namespace outboard::nvme::test {

// Guest memory of one command in flight: 32 KiB of data, one page of lists and one more after it.
inline constexpr u64 kSlotSize = 0x8000;
inline constexpr u64 kMessageWindow = 0x2000'0000;   // reached by messages only
inline constexpr u64 kReadOnlyWindow = 0x3000'0000;  // mapped, not writable
inline constexpr u64 kNowhere = 0x7000'0000;
inline constexpr u32 kSlots = 8;

struct Expectation {
  u16 id = 0;
  Status status = Status::success;
  bool status_known = true;
  u64 slot = 0;                       // base of its data, 0: none
  std::vector<std::byte> slot_after;  // what the slot must then hold
};

class Model {
 public:
  struct Disk {
    std::vector<std::byte> bytes;
    u32 shift;
    bool read_only;
  };

  Model(Driver& guest, u64 seed) : guest_(guest), random_(seed) {}

  u64 below(u64 limit) { return random_() % limit; }
  bool one_in(u64 n) { return below(n) == 0; }

  // An I/O command for slot `index` of a burst, with its effect on the disks applied.
  Command io(u32 index, Expectation& expect);
  // 64 random bytes with an opcode that is harmless should it be valid.
  Command garbage(bool admin);

  std::vector<Disk> disks;

 private:
  struct Part {
    u64 address;
    u32 length;
    bool bucket = false;
  };
  enum class Fault {
    none,
    nsid,
    range,
    wrap,
    size,
    fuse,
    psdt,
    opcode,
    read_only,
    directive,
    first_odd,
    second_offset,
    list_odd,
    list_nowhere,
    entry_offset,
    data_nowhere,
    sgl_type,
    sgl_segment,
    sgl_short,
    sgl_nested,
    sgl_nowhere
  };

  std::vector<Part> point(Command& command, u32 length, bool to_guest, Fault& fault, u64 slot,
                          u64 lists, Status& status);
  std::vector<Part> point_prp(Command& command, u32 length, Fault& fault, u64 slot, u64 lists,
                              Status& status);
  std::vector<Part> point_sgl(Command& command, u32 length, bool to_guest, Fault& fault, u64 slot,
                              u64 lists, Status& status);
  std::span<std::byte> memory(u64 address, u64 size) { return guest_.dma.memory(address, size); }

  Driver& guest_;
  std::mt19937_64 random_;
};

}  // namespace outboard::nvme::test
