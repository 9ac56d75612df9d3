#include "devices/intx.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vfio_user/device_description.h"

namespace outboard::devices {
namespace {

// Empties a non-blocking eventfd.
void consume(int fd) {
  std::uint64_t count = 0;
  (void)!::read(fd, &count, sizeof count);
}

Result<void> open_eventfd(vfio_user::UniqueFd& into) {
  into = vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (into) return {};
  const int code = errno;
  return failure(std::string("no eventfd for INTx: ") + std::strerror(code), code);
}

}  // namespace

Intx::Intx(std::uint32_t gsi, DeviceIrqs& device, IntxRouter& router, std::function<void()> started)
    : gsi_(gsi), device_(device), router_(router), started_(std::move(started)) {}

Intx::~Intx() {
  drop();
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  (void)!::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

Result<void> Intx::open() {
  for (vfio_user::UniqueFd* const fd : {&trigger_, &resample_, &stop_}) {
    if (*fd) continue;
    if (auto opened = open_eventfd(*fd); !opened) return opened;
  }
  if (thread_.joinable()) return {};
  // Signals belong to the threads that ask for them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] {
    if (started_) started_();
    serve_eois();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return {};
}

Result<void> Intx::arm() {
  if (armed_) return {};
  if (auto opened = open(); !opened) return opened;
  consume(trigger_.get());  // what a server signalled late, after it had been told to stop
  const std::array<int, 1> fds{trigger_.get()};
  if (auto told = device_.arm(vfio_user::kIrqIntx, 0, fds); !told) return told;
  armed_ = true;
  return {};
}

Result<void> Intx::set_connected(bool connected) {
  if (connected == connected_ || !armed_) return {};
  if (!connected) {
    deliver_ = false;
    router_.disconnect(gsi_, trigger_.get());
    connected_ = false;
    return {};
  }
  // While it was disconnected an EOI went unseen: let the server look at its level once more.
  if (was_connected_) {
    const std::uint64_t one = 1;
    (void)!::write(resample_.get(), &one, sizeof one);
  }
  deliver_ = true;
  auto done = router_.connect(gsi_, trigger_.get(), resample_.get());
  connected_ = done.has_value();
  was_connected_ = connected_;
  deliver_ = connected_;
  return done;
}

Result<void> Intx::disarm() {
  if (!armed_) return {};
  drop();
  return device_.disable(vfio_user::kIrqIntx);
}

void Intx::drop() {
  (void)set_connected(false);
  trigger_.reset();  // a server that still has it reaches nobody
  armed_ = false;
  was_connected_ = false;
}

void Intx::signal() const {
  const std::uint64_t one = 1;
  if (armed_) (void)!::write(trigger_.get(), &one, sizeof one);
}

// The GSI is this function's alone, so an EOI means that its device had raised the line; several
// before this thread runs are one unmask.
void Intx::serve_eois() {
  std::array<pollfd, 2> fds{{{resample_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
  for (;;) {
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    if (fds[0].revents == 0) continue;
    consume(resample_.get());
    if (!deliver_) continue;
    unmasks_.fetch_add(1, std::memory_order_relaxed);
    (void)device_.unmask(vfio_user::kIrqIntx, 0, 1);  // refused: the server needs none
  }
}

}  // namespace outboard::devices
