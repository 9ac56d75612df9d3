#include "vmm/event_loop.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace outboard::vmm {
namespace {

constexpr std::uint64_t kWakeId = 0;

tl::unexpected<MachineError> system_failure(const char* what) {
  const int error = errno;
  return failure(ExitStatus::internal_error, fmt::format("{}: {}", what, std::strerror(error)));
}

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  vfio_user::UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_failure("cannot make an epoll descriptor");
  vfio_user::UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return system_failure("cannot make an eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeId;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) {
    return system_failure("cannot watch an eventfd");
  }
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake)));
}

EventLoop::EventLoop(vfio_user::UniqueFd epoll, vfio_user::UniqueFd wake)
    : epoll_(std::move(epoll)), wake_(std::move(wake)), thread_(std::this_thread::get_id()) {}

EventLoop::~EventLoop() = default;

devices::WatchId EventLoop::add(Watch watch) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t id = next_id_++;
  epoll_event event{};
  event.events = watch.events;
  event.data.u64 = id;
  int result = ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, watch.fd, &event);
  if (result != 0 && errno == EEXIST) {
    watch.own.reset(::fcntl(watch.fd, F_DUPFD_CLOEXEC, 0));
    watch.fd = watch.own.get();
    result = ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, watch.fd, &event);
  }
  if (result != 0 && errno == EPERM) {
    watch.always_ready = true;
    ++always_ready_;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
  }
  watches_.emplace(id, std::make_shared<Watch>(std::move(watch)));
  return devices::WatchId{id};
}

devices::WatchId EventLoop::watch(int fd, std::uint32_t epoll_events,
                                  std::function<void(std::uint32_t)> callback) {
  Watch watch;
  watch.fd = fd;
  watch.events = epoll_events;
  watch.callback = std::move(callback);
  return add(std::move(watch));
}

void EventLoop::unwatch(devices::WatchId id) {
  const auto key = static_cast<std::uint64_t>(id);
  std::unique_lock lock(mutex_);
  const auto found = watches_.find(key);
  if (found != watches_.end()) {
    if (found->second->always_ready) {
      --always_ready_;
    } else {
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second->fd, nullptr);
    }
    watches_.erase(found);
  }
  if (std::this_thread::get_id() == thread_) return;
  finished_.wait(lock, [&] { return running_ != key; });
}

void EventLoop::post(std::function<void()> function) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(function));
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

Result<devices::WatchId> EventLoop::watch_signals(std::initializer_list<int> signals,
                                                  std::function<void(int)> callback) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0) {
    errno = error;
    return system_failure("cannot block signals");
  }
  Watch watch;
  watch.own.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!watch.own) return system_failure("cannot make a signalfd");
  watch.fd = watch.own.get();
  watch.events = EPOLLIN;
  watch.callback = [fd = watch.fd, call = std::move(callback)](std::uint32_t) {
    signalfd_siginfo info{};
    while (::read(fd, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
      call(static_cast<int>(info.ssi_signo));
    }
  };
  return add(std::move(watch));
}

Result<devices::WatchId> EventLoop::after(std::chrono::milliseconds delay,
                                          std::function<void()> function) {
  Watch watch;
  watch.own.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!watch.own) return system_failure("cannot make a timer");
  watch.fd = watch.own.get();
  itimerspec when{};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(delay);
  when.it_value.tv_sec = seconds.count();
  when.it_value.tv_nsec = std::chrono::nanoseconds(delay - seconds).count();
  if (delay <= std::chrono::milliseconds(0)) when.it_value.tv_nsec = 1;
  if (::timerfd_settime(watch.fd, 0, &when, nullptr) != 0) {
    return system_failure("cannot set a timer");
  }
  watch.events = EPOLLIN;
  watch.once = true;
  watch.callback = [call = std::move(function)](std::uint32_t) { call(); };
  return add(std::move(watch));
}

void EventLoop::dispatch(std::uint64_t id, std::uint32_t events) {
  std::shared_ptr<Watch> watch;
  {
    const std::lock_guard lock(mutex_);
    const auto found = watches_.find(id);
    if (found == watches_.end()) return;  // unwatched by an earlier callback of this round
    watch = found->second;
    running_ = id;
    if (watch->once) {
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, watch->fd, nullptr);
      watches_.erase(found);
    }
  }
  watch->callback(events);
  {
    const std::lock_guard lock(mutex_);
    running_ = 0;
  }
  finished_.notify_all();
}

void EventLoop::run_posted() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
  std::vector<std::function<void()>> posted;
  {
    const std::lock_guard lock(mutex_);
    posted.swap(posted_);
  }
  for (const auto& function : posted) function();
}

void EventLoop::run_once(std::optional<std::chrono::milliseconds> timeout) {
  int wait =
      timeout ? static_cast<int>(std::clamp<std::int64_t>(timeout->count(), 0, 1'000'000'000)) : -1;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> always;
  {
    const std::lock_guard lock(mutex_);
    if (always_ready_ != 0) {
      wait = 0;
      for (const auto& [id, watch] : watches_) {
        if (watch->always_ready) always.emplace_back(id, watch->events & (EPOLLIN | EPOLLOUT));
      }
    }
  }
  std::array<epoll_event, 32> events;
  const int ready =
      ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait);
  for (int i = 0; i < ready; ++i) {
    const auto& event = events[static_cast<std::size_t>(i)];
    const std::uint64_t id = event.data.u64;
    if (id == kWakeId) {
      run_posted();
    } else {
      dispatch(id, event.events);
    }
  }
  for (const auto& [id, ready_events] : always) dispatch(id, ready_events);
}

}  // namespace outboard::vmm
