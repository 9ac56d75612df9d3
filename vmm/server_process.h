#pragma once

// A device server that outboard starts itself: a child process with a private socket directory.
// Created and destroyed by the command that runs the machine, on the main thread.

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

#include "vfio_user/result.h"
#include "vfio_user/unique_fd.h"

namespace outboard::vmm {

class ServerProcess {
 public:
  // Starts `argv` ("{socket}" in any word is replaced by the socket's path; without one,
  // "--socket PATH" is appended) and returns at once. A bare program name is looked up beside the
  // running executable first, then on PATH. The child gets SIGTERM when this process dies.
  [[nodiscard]] static vfio_user::Result<std::unique_ptr<ServerProcess>> start(
      const std::string& name, const std::vector<std::string>& argv,
      const std::vector<int>& affinity);

  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  ~ServerProcess();  // stop()

  // Waits (by inotify and pidfd) until the socket exists and listens, the child ends, or `deadline`
  // passes. Errors say which, with the exit status of the child; the caller names the device. Makes
  // no connection: to many servers the first one is the only one. Gives up when `cancel_fd` becomes
  // readable (-1: never). Any thread, but one at a time.
  [[nodiscard]] vfio_user::Result<void> wait_until_listening(std::chrono::milliseconds deadline,
                                                             int cancel_fd = -1);

  // The connection to the server is lost: starts it anew if it has ended, or with `insist` if it
  // has not, which kills it first. Leaves it alone if it runs. On the thread that start() was
  // called on, whose end is SIGTERM to the server.
  [[nodiscard]] vfio_user::Result<void> revive(bool insist);

  // SIGTERM, then SIGKILL after `grace`; reaps the child and removes the socket and its directory.
  void stop(std::chrono::milliseconds grace = std::chrono::milliseconds(5000));

  [[nodiscard]] const std::string& socket_path() const { return socket_path_; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }  // readable when the child has ended
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  ServerProcess() = default;
  vfio_user::Result<void> spawn();
  void reap();

  std::string name_;                // of the device
  std::vector<std::string> words_;  // the command
  std::vector<int> affinity_;
  std::string directory_;
  std::string socket_path_;
  vfio_user::UniqueFd pidfd_;
  vfio_user::UniqueFd watch_;  // inotify; kept, since closing it waits a grace period of the kernel
  pid_t pid_ = -1;
};

}  // namespace outboard::vmm
