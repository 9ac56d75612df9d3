#pragma once

// Groups of system calls that threads of both programs need, to put allow-lists together from. None
// of them executes a program, opens a file or makes memory executable.

#include <cstdint>
#include <initializer_list>

#include "vmm/box/call_rule.h"

namespace outboard::box {

[[nodiscard]] CallRules join(std::initializer_list<CallRules> groups);

// Rules that allow `call` with each of these values of an int argument.
[[nodiscard]] CallRules one_of(const char* call, unsigned argument,
                               std::initializer_list<std::uint32_t> values);

// What the C++ run-time asks for in any thread: locks, memory that cannot be executed, clocks, its
// own signals, reading, writing and closing what is open. And what a breach's handler needs.
[[nodiscard]] CallRules every_thread();

// Further threads of this process, never another process; and their way into boxes of their own.
[[nodiscard]] CallRules start_threads();

// To wait for descriptors: poll, and to add to and wait for an epoll set; timers that are there.
[[nodiscard]] CallRules wait_for_events();

// New eventfds, epoll sets and timers.
[[nodiscard]] CallRules make_event_sources();

// Messages on connected sockets.
[[nodiscard]] CallRules talk();

// New Unix sockets, and none of any other family; to connect them by path, or by a name in an open
// directory, which takes a working directory of the thread's own.
[[nodiscard]] CallRules connect_sockets();

}  // namespace outboard::box
