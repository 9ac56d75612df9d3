// The sandbox of outboard-nvme: what kinds of threads it has, and what each may do once a client
// can reach it. The README has the table.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tools/nvme/options.h"
#include "vmm/box/box.h"

namespace outboard::nvme {

enum class ThreadKind : std::size_t {
  pool,     // serves a file where io_uring is refused; from the thread's start on
  service,  // the event loop, when the first client may come
};

// Takes from the process what it does not need, and begins to make the walls. Main thread, before
// any image is opened. The error is one sentence.
tl::expected<std::unique_ptr<box::Box>, std::string> make_sandbox(const Options& options);

// For threads that may be outside of any: without a sandbox, nothing happens.
inline void enter(box::Box* sandbox, ThreadKind kind, const std::string& name) {
  if (sandbox != nullptr) sandbox->enter(static_cast<std::size_t>(kind), name);
}

// What threads of that kind may call; for make_sandbox() and its tests.
box::CallRules calls_of(ThreadKind kind);

}  // namespace outboard::nvme
