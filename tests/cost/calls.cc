#include "tests/cost/calls.h"

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdlib>
#include <ctime>
#include <new>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace {

using outboard::cost_test::Calls;

thread_local constinit Calls counted;

template <class... Arguments>
long raw(std::uint64_t& counter, long number, Arguments... arguments) {
  ++counter;
  return ::syscall(number, arguments...);
}

void* allocate(std::size_t size) {
  ++counted.allocations;
  if (void* const memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}

}  // namespace

namespace outboard::cost_test {

Calls calls() {
  return counted;
}

Calls operator-(const Calls& after, const Calls& before) {
  return {.sends = after.sends - before.sends,
          .receives = after.receives - before.receives,
          .polls = after.polls - before.polls,
          .watches = after.watches - before.watches,
          .others = after.others - before.others,
          .clocks = after.clocks - before.clocks,
          .allocations = after.allocations - before.allocations};
}

}  // namespace outboard::cost_test

extern "C" {

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  return raw(counted.sends, SYS_sendmsg, fd, message, flags);
}
ssize_t send(int fd, const void* data, size_t size, int flags) {
  return raw(counted.sends, SYS_sendto, fd, data, size, flags, nullptr, 0);
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  return raw(counted.receives, SYS_recvmsg, fd, message, flags);
}
ssize_t recv(int fd, void* data, size_t size, int flags) {
  return raw(counted.receives, SYS_recvfrom, fd, data, size, flags, nullptr, nullptr);
}
int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  timespec copy{};  // the kernel writes to it
  if (timeout != nullptr) copy = *timeout;
  return static_cast<int>(raw(counted.polls, SYS_ppoll, fds, count,
                              timeout != nullptr ? &copy : nullptr, mask, _NSIG / 8));
}
// arm64 has neither poll nor epoll_wait.
int poll(pollfd* fds, nfds_t count, int timeout) {
  timespec wait{.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1'000'000L};
  return static_cast<int>(
      raw(counted.polls, SYS_ppoll, fds, count, timeout >= 0 ? &wait : nullptr, nullptr, 0));
}
int epoll_wait(int fd, epoll_event* events, int count, int timeout) {
  return static_cast<int>(
      raw(counted.polls, SYS_epoll_pwait, fd, events, count, timeout, nullptr, 0));
}
int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  return static_cast<int>(raw(counted.watches, SYS_epoll_ctl, epoll, operation, fd, event));
}
int timerfd_settime(int fd, int flags, const itimerspec* wanted, itimerspec* old) noexcept {
  return static_cast<int>(raw(counted.watches, SYS_timerfd_settime, fd, flags, wanted, old));
}
ssize_t read(int fd, void* data, size_t size) {
  return raw(counted.others, SYS_read, fd, data, size);
}
ssize_t write(int fd, const void* data, size_t size) {
  return raw(counted.others, SYS_write, fd, data, size);
}
int clock_gettime(clockid_t clock, timespec* time) noexcept {
  return static_cast<int>(raw(counted.clocks, SYS_clock_gettime, clock, time));
}

}  // extern "C"

void* operator new(std::size_t size) {
  return allocate(size);
}
void* operator new[](std::size_t size) {
  return allocate(size);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
