// The state file: a header, the doorbell page, and what a successor goes on with (saved_state.h),
// in one shared mapping. Owned by the program for as long as it serves; one process at a time.
//
//   0000h  header: whose state this is; written once
//   1000h  the doorbell page, where BAR0 has it, so that a client can map it from this file
//   2000h  SavedState
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "tools/nvme/saved_state.h"
#include "vfio_user/unique_fd.h"

namespace outboard::nvme {

// What the state is of: hashes of everything that must be the same for a guest that goes on.
struct StateIdentity {
  u64 controller = 0;           // serial number, queues, way of the doorbells
  std::vector<u64> namespaces;  // each with its file, size, block size, protection
};

class StateFile {
 public:
  // Takes the file, made when there is none. Waits up to `patience` for a process that holds it to
  // be gone for good. Errors are one sentence with its remedy.
  static tl::expected<std::unique_ptr<StateFile>, std::string> open(
      const std::string& path, const StateIdentity& identity,
      std::chrono::milliseconds patience = std::chrono::seconds(1));
  ~StateFile();
  StateFile(const StateFile&) = delete;
  StateFile& operator=(const StateFile&) = delete;

  // Unchecked: whatever the file holds.
  SavedState& state() { return *state_; }
  // Names the state: 32 hexadecimal digits, made with the file.
  const std::string& id() const { return id_; }
  // The predecessor has not seen its client go, and the guest may still be there.
  bool left_over() const { return left_over_; }
  // The predecessor's state is of no use: the file says so from here on.
  void forget();

  // For the doorbell page and its clients: another open file, so that a client that keeps it does
  // not keep the lock.
  tl::expected<vfio_user::UniqueFd, std::string> doorbell_file() const;

 private:
  StateFile(vfio_user::UniqueFd fd, std::byte* base) : fd_(std::move(fd)), base_(base) {}

  vfio_user::UniqueFd fd_;
  std::byte* base_;
  SavedState* state_ = nullptr;
  std::string id_;
  bool left_over_ = false;
};

// A hash of the running kernel's boot id; a fixed number where there is none.
u64 boot_hash();

}  // namespace outboard::nvme
