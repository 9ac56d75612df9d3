// outboard-nvme in a process of its own, to be killed and started again over the same image.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <sys/types.h>

#include "vfio_user/unique_fd.h"

namespace outboard::chaos {

// One thread at a time. The process dies with the thread that started it last.
class NvmeProcess final {
 public:
  // argv of the program, without --socket; it will listen on `socket`.
  NvmeProcess(std::vector<std::string> command, std::string socket);
  ~NvmeProcess() { kill(); }
  NvmeProcess(const NvmeProcess&) = delete;
  NvmeProcess& operator=(const NvmeProcess&) = delete;

  // Starts it and waits until it listens; false: it has ended before.
  bool start();
  // kill -9, and waits until it is gone. Nothing when it does not run.
  void kill();
  // SIGTERM, and waits; its exit status, 128 + n for a signal.
  int stop();
  void signal(int number) const;

  [[nodiscard]] bool started() const { return pid_ > 0; }
  [[nodiscard]] const std::string& socket() const { return socket_; }
  // From the fork to the moment when it listened, of the last start().
  [[nodiscard]] std::chrono::microseconds start_took() const { return start_took_; }

 private:
  int reap();

  std::vector<std::string> command_;
  std::string socket_;
  pid_t pid_ = -1;
  std::chrono::microseconds start_took_{};
};

// A connection to a Unix socket; none when nobody listens.
vfio_user::UniqueFd connect_to(const std::string& path);
// A socket that listens at `path`, where nothing may be.
vfio_user::UniqueFd listen_at(const std::string& path);

}  // namespace outboard::chaos
