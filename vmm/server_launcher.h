#pragma once

// A small process that starts a device's server, and starts it again when it has died. Forked while
// outboard still has one thread and may do everything; later outboard has many threads and, in its
// sandbox, may start nothing. It ends, and ends its server, with the process that made it.
//
// Made and destroyed by the command that runs the machine, on the main thread.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

#include "vfio_user/result.h"
#include "vfio_user/unique_fd.h"

namespace outboard::vmm {

class ServerLauncher {
 public:
  // As ServerProcess::start().
  [[nodiscard]] static vfio_user::Result<std::unique_ptr<ServerLauncher>> start(
      const std::string& name, const std::vector<std::string>& argv,
      const std::vector<int>& affinity);

  ServerLauncher(const ServerLauncher&) = delete;
  ServerLauncher& operator=(const ServerLauncher&) = delete;
  ~ServerLauncher();  // ends the server, waits for it, and removes its socket

  // Each any thread, but one at a time; errors are those of ServerProcess, and ECANCELED when
  // `cancel_fd` becomes readable (-1: never). Returns the path of the socket.
  [[nodiscard]] vfio_user::Result<std::string> wait_until_listening(
      std::chrono::milliseconds deadline, int cancel_fd = -1);
  // ServerProcess::revive(), and waits until it listens.
  [[nodiscard]] vfio_user::Result<std::string> revive(bool insist,
                                                      std::chrono::milliseconds deadline,
                                                      int cancel_fd = -1);

  [[nodiscard]] pid_t pid() const { return pid_; }  // of the launcher itself

 private:
  ServerLauncher() = default;
  vfio_user::Result<std::string> ask(char what, bool insist, std::chrono::milliseconds deadline,
                                     int cancel_fd);

  vfio_user::UniqueFd socket_;
  pid_t pid_ = -1;
  std::uint32_t questions_ = 0;
};

}  // namespace outboard::vmm
