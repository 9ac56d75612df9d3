#include "vfio_user/server.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vfio_user/server_session.h"
#include "vfio_user/socket_transport.h"

namespace outboard::vfio_user {

namespace {

// Keys of the epoll set, beside those of ServerSession.
constexpr std::uint64_t kListener = 16;
constexpr std::uint64_t kVersionTimer = 17;
constexpr std::uint64_t kWake = 18;

/// Clients that may wait to be told that another one is there.
constexpr int kBacklog = 8;
constexpr std::uint64_t kMaxDataXferSize = std::uint64_t{64} * 1024 * 1024;

tl::unexpected<Error> system_failure(const std::string& what) {
  const int code = errno;
  return fail(Error::Kind::system, code, what + ": " + std::system_category().message(code));
}

ServerOptions within_bounds(ServerOptions options) {
  options.max_msg_fds =
      std::min(options.max_msg_fds, static_cast<std::uint32_t>(wire::kMaxSocketFds));
  options.max_data_xfer_size =
      std::clamp<std::uint64_t>(options.max_data_xfer_size, 1, kMaxDataXferSize);
  return options;
}

/// A socket file, removed at the end if it still is the one that was made.
class SocketFile final {
 public:
  SocketFile() = default;
  explicit SocketFile(std::string path) : path_(std::move(path)) {
    if (::lstat(path_.c_str(), &made_) != 0) path_.clear();
  }
  SocketFile(SocketFile&& other) noexcept
      : path_(std::exchange(other.path_, {})), made_(other.made_) {}
  SocketFile& operator=(SocketFile&&) = delete;
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;
  ~SocketFile() {
    struct stat now {};
    if (!path_.empty() && ::lstat(path_.c_str(), &now) == 0 && now.st_dev == made_.st_dev &&
        now.st_ino == made_.st_ino) {
      ::unlink(path_.c_str());
    }
  }

 private:
  std::string path_;
  struct stat made_ {};
};

}  // namespace

class Server::Impl final : public SessionEvents {
 public:
  Impl(DeviceModel& model, ServerOptions options, SocketFile file)
      : model_(model), options_(within_bounds(std::move(options))), file_(std::move(file)) {}

  ~Impl() override {
    if (session_) end_session();
  }

  Result<void> open(UniqueFd listener) {
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    reserve_.reset(::fcntl(epoll_.get(), F_DUPFD_CLOEXEC, 0));
    if (!epoll_ || !wake_ || !timer_) return system_failure("cannot make a server's event sources");
    if (auto watched = watch(wake_.get(), false, kWake); !watched) return watched;
    if (auto watched = watch(timer_.get(), false, kVersionTimer); !watched) return watched;
    if (!listener) return {};
    int accepts = 0;
    socklen_t length = sizeof(accepts);
    if (::getsockopt(listener.get(), SOL_SOCKET, SO_ACCEPTCONN, &accepts, &length) != 0 ||
        accepts == 0) {
      return fail(Error::Kind::invalid, EINVAL, "the file descriptor is no listening socket");
    }
    const int flags = ::fcntl(listener.get(), F_GETFL);
    if (flags < 0 || ::fcntl(listener.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
      return system_failure("cannot set up the listening socket");
    }
    listener_ = std::move(listener);
    return watch(listener_.get(), false, kListener);
  }

  Result<void> begin_session(UniqueFd connected) {
    auto transport = SocketTransport::adopt(std::move(connected));
    if (!transport) return tl::make_unexpected(transport.error());
    session_ =
        std::make_unique<ServerSession>(std::move(*transport), model_, options_, counters_, *this);
    ++counters_.connections;
    if (auto started = session_->start(); !started) {
      session_.reset();
      return started;
    }
    set_version_timer(options_.version_timeout);
    return {};
  }

  Result<void> process() {
    std::array<epoll_event, 16> ready{};
    const int count = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), 0);
    if (count < 0 && errno != EINTR) return system_failure("cannot poll");
    bool connecting = false;
    for (int i = 0; i < count; ++i) {
      const std::uint64_t key = ready[static_cast<std::size_t>(i)].data.u64;
      if (key == kListener) {
        connecting = true;
      } else if (key == kWake) {
        std::uint64_t ignored = 0;
        [[maybe_unused]] const auto drained = ::read(wake_.get(), &ignored, sizeof(ignored));
      } else if (key == kVersionTimer) {
        on_version_timer();
      } else if (session_) {
        session_->on_ready(key);
      }
    }
    if (session_ && session_->has_work()) session_->resume();
    settle();
    // After the session's own events, so that a client that left and comes back is not refused.
    if (connecting) return accept_client();
    return {};
  }

  /// The session may have commands set aside, or be at its end, with no socket to show it.
  void settle() {
    if (session_ && session_->negotiated()) set_version_timer(std::chrono::milliseconds(0));
    if (session_ && session_->end()) end_session();
    if (session_ && session_->has_work()) wake();
  }

  void wake() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof(one));
  }

  template <class Span>
  int dma(std::uint64_t iova, Span data) {
    if (!session_) return ENOTCONN;
    int error = 0;
    if constexpr (std::is_const_v<typename Span::element_type>) {
      error = session_->dma_write(iova, data);
    } else {
      error = session_->dma_read(iova, data);
    }
    if (session_->end() || session_->has_work()) wake();
    return error;
  }

  Result<void> watch(int fd, bool writable_too, std::uint64_t key) override {
    epoll_event event{};
    event.events = EPOLLIN | (writable_too ? std::uint32_t{EPOLLOUT} : 0);
    event.data.u64 = key;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return system_failure("cannot watch a file descriptor");
    }
    return {};
  }

  void rewatch(int fd, bool writable_too, std::uint64_t key) override {
    epoll_event event{};
    event.events = EPOLLIN | (writable_too ? std::uint32_t{EPOLLOUT} : 0);
    event.data.u64 = key;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
  }

  void unwatch(int fd) override { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

  [[nodiscard]] int poll_fd() const { return epoll_.get(); }
  [[nodiscard]] ServerSession* session() const { return session_.get(); }
  Counters& counters() { return counters_; }

 private:
  Result<void> accept_client() {
    if (session_ && session_->hung_up()) return {};  // its end is read first; then this one's turn
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) {
      switch (errno) {
        case EMFILE:
        case ENFILE:
          // Without a descriptor to spare the connection could not even be refused, and would keep
          // the listening socket readable.
          reserve_.reset();
          client.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
          client.reset();
          reserve_.reset(::fcntl(epoll_.get(), F_DUPFD_CLOEXEC, 0));
          ++counters_.refused;
          say("a client was refused: too many open files; raise the limit");
          return {};
        case EAGAIN:
        case EINTR:
        case ECONNABORTED:
          return {};
        default:
          return system_failure("cannot accept a client");
      }
    }
    if (session_) {
      ++counters_.refused;
      say("a second client was refused: one is served at a time");
      return {};
    }
    if (auto begun = begin_session(std::move(client)); !begun) say(begun.error().message);
    return {};
  }

  void end_session() {
    const bool met = session_->negotiated();
    session_->take_down();
    const Error why = *session_->end();
    session_.reset();
    set_version_timer(std::chrono::milliseconds(0));
    if (why.kind != Error::Kind::closed) {
      ++counters_.dropped;
      say("the client was dropped: " + why.message);
    }
    if (met) model_.disconnected();
  }

  void on_version_timer() {
    std::uint64_t expirations = 0;
    if (::read(timer_.get(), &expirations, sizeof(expirations)) != sizeof(expirations)) return;
    if (session_ && !session_->negotiated()) {
      session_->end_with({Error::Kind::timeout, ETIMEDOUT, "it sent no VERSION in time"});
    }
  }

  void set_version_timer(std::chrono::milliseconds delay) {
    if (delay.count() == 0 && !timer_set_) return;
    timer_set_ = delay.count() > 0;
    itimerspec when{};
    when.it_value.tv_sec = delay.count() / 1000;
    when.it_value.tv_nsec = delay.count() % 1000 * 1'000'000;
    ::timerfd_settime(timer_.get(), 0, &when, nullptr);
  }

  void say(const std::string& text) const {
    if (options_.log) options_.log(text);
  }

  DeviceModel& model_;
  ServerOptions options_;
  SocketFile file_;
  UniqueFd listener_;
  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd timer_;
  // Given up to be able to refuse a client when there are too many open files; a duplicate, since a
  // server in a sandbox may open no file.
  UniqueFd reserve_;
  bool timer_set_ = false;
  Counters counters_;
  std::unique_ptr<ServerSession> session_;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::listen(const std::string& path, DeviceModel& model,
                                               ServerOptions options) {
  auto listener = listen_unix(path, kBacklog);
  if (!listener) return tl::make_unexpected(listener.error());
  auto impl = std::make_unique<Impl>(model, std::move(options), SocketFile(path));
  if (auto opened = impl->open(std::move(*listener)); !opened) {
    return tl::make_unexpected(opened.error());
  }
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Result<std::unique_ptr<Server>> Server::listen(UniqueFd listening, DeviceModel& model,
                                               ServerOptions options) {
  if (!listening) return fail(Error::Kind::invalid, EBADF, "there is no listening socket");
  auto impl = std::make_unique<Impl>(model, std::move(options), SocketFile());
  if (auto opened = impl->open(std::move(listening)); !opened) {
    return tl::make_unexpected(opened.error());
  }
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Result<std::unique_ptr<Server>> Server::attach(UniqueFd connected, DeviceModel& model,
                                               ServerOptions options) {
  auto impl = std::make_unique<Impl>(model, std::move(options), SocketFile());
  if (auto opened = impl->open(UniqueFd()); !opened) return tl::make_unexpected(opened.error());
  if (auto begun = impl->begin_session(std::move(connected)); !begun) {
    return tl::make_unexpected(begun.error());
  }
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

int Server::poll_fd() const {
  return impl_->poll_fd();
}

Result<void> Server::process() {
  return impl_->process();
}

std::span<std::byte> Server::translate(std::uint64_t iova, std::uint64_t size, bool write) {
  ServerSession* session = impl_->session();
  return session != nullptr ? session->windows().translate(iova, size, write)
                            : std::span<std::byte>();
}

int Server::dma_read(std::uint64_t iova, std::span<std::byte> data) {
  return impl_->dma(iova, data);
}

int Server::dma_write(std::uint64_t iova, std::span<const std::byte> data) {
  return impl_->dma(iova, data);
}

int Server::trigger(std::uint32_t index, std::uint32_t vector) {
  ServerSession* session = impl_->session();
  if (session == nullptr) return ENOENT;
  return session->irqs().trigger(index, vector, impl_->counters().triggers);
}

bool Server::armed(std::uint32_t index, std::uint32_t vector) const {
  ServerSession* session = impl_->session();
  return session != nullptr && session->irqs().armed(index, vector);
}

bool Server::connected() const {
  const ServerSession* session = impl_->session();
  return session != nullptr && session->negotiated();
}

const Server::Counters& Server::counters() const {
  return impl_->counters();
}

}  // namespace outboard::vfio_user
