#pragma once

// The sandbox of the machine: what kinds of threads outboard has, and what each of them may do once
// the guest can reach it. vmm/README.md has the table.
//
// Made by the command that runs the machine, on the main thread; the machine's threads enter it.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/box/box.h"
#include "vmm/error.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

// In the order in which they are needed.
enum class ThreadKind : std::size_t {
  attach,     // one a device, while it attaches
  twin,       // one a twin socket
  vcpu,       // from the thread's start on
  main,       // the event loop, when the guest starts
  intx,       // one a device with an interrupt pin in use
  reconnect,  // one a device whose server may come back
};

class Sandbox final {
 public:
  // Begins to make the walls. `folders` are those where the main thread puts files in place at the
  // end (see RunFiles) or has sockets and links to remove. Errors: ExitStatus::internal_error.
  [[nodiscard]] static Result<std::unique_ptr<Sandbox>> create(
      const MachineConfig& config, std::vector<std::string> folders = {});

  // See box::Box::enter().
  void enter(ThreadKind kind, std::string_view name) {
    box_->enter(static_cast<std::size_t>(kind), name);
  }

  [[nodiscard]] box::Report report() { return box_->report(); }

 private:
  explicit Sandbox(std::unique_ptr<box::Box> box) : box_(std::move(box)) {}

  std::unique_ptr<box::Box> box_;
};

// For threads that may be outside of any: without a sandbox, nothing happens.
inline void enter(Sandbox* sandbox, ThreadKind kind, std::string_view name) {
  if (sandbox != nullptr) sandbox->enter(kind, name);
}

// What threads of that kind may call; for Sandbox and its tests.
[[nodiscard]] box::CallRules calls_of(ThreadKind kind);

}  // namespace outboard::vmm
