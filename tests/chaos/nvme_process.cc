#include "tests/chaos/nvme_process.h"

#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

namespace outboard::chaos {
namespace {

using Clock = std::chrono::steady_clock;
using vfio_user::UniqueFd;

constexpr int kReadyFd = 3;

bool address_of(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return true;
}

}  // namespace

NvmeProcess::NvmeProcess(std::vector<std::string> command, std::string socket)
    : command_(std::move(command)), socket_(std::move(socket)) {
  for (const char* word : {"--socket", socket_.c_str(), "--ready-fd", "3"}) {
    command_.emplace_back(word);
  }
}

bool NvmeProcess::start() {
  const auto began = Clock::now();
  std::vector<char*> words;
  for (const std::string& word : command_) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  const UniqueFd ready(ends[0]);
  UniqueFd told(ends[1]);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(0);
    if (told.get() == kReadyFd) {
      ::fcntl(kReadyFd, F_SETFD, 0);
    } else {
      ::dup2(told.get(), kReadyFd);
    }
    ::execvp(words[0], words.data());
    ::_exit(127);
  }
  told.reset();
  char byte = 0;
  ssize_t got = 0;
  while ((got = ::read(ready.get(), &byte, 1)) < 0 && errno == EINTR) {
  }
  start_took_ = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began);
  if (got == 1) return true;
  kill();
  return false;
}

int NvmeProcess::reap() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void NvmeProcess::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  reap();
}

int NvmeProcess::stop() {
  if (pid_ <= 0) return 0;
  ::kill(pid_, SIGTERM);
  return reap();
}

void NvmeProcess::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}

UniqueFd connect_to(const std::string& path) {
  sockaddr_un address;
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!address_of(path, address) ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fd.reset();
  }
  return fd;
}

UniqueFd listen_at(const std::string& path) {
  sockaddr_un address;
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!address_of(path, address) ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), 8) != 0) {
    fd.reset();
  }
  return fd;
}

}  // namespace outboard::chaos
