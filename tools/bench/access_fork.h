#pragma once

// Processes that are forked and run a function, with no exec between: servers and the other sides
// of floors. For a caller that has no other threads.

#include <functional>
#include <optional>

#include <sys/types.h>

namespace outboard::bench {

// Which host CPU each side of an access is bound to; none: where the scheduler puts it.
struct Placement {
  std::optional<int> vmm;     // outboard, the bare machine, whoever asks
  std::optional<int> server;  // device servers, whoever answers
};

// Binds the calling process to that CPU, if one is given. False: there is no such CPU.
bool bind_to(std::optional<int> cpu);

// The new process runs `work`, then ends; it is killed when this process dies. -1 and errno when
// there can be none.
pid_t fork_process(const std::function<void()>& work);

// Kills and reaps it. Nothing for -1.
void end_process(pid_t process);

}  // namespace outboard::bench
