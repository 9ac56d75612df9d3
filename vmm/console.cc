#include "vmm/console.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "vfio_user/socket_transport.h"
#include "vmm/box/breach.h"
#include "vmm/log.h"
#include "vmm/units.h"

namespace outboard::vmm {
namespace {

using devices::EventLoop;
using vfio_user::Error;
using vfio_user::UniqueFd;

tl::unexpected<Error> fail(int code, std::string message) {
  return tl::unexpected(Error{Error::Kind::system, code, std::move(message)});
}

constexpr std::byte kEscape{0x01};  // Ctrl-A

// Finds Ctrl-A sequences in what a person types; Ctrl-A twice sends one Ctrl-A to the guest.
class EscapeFilter {
 public:
  // Appends what is for the guest to `out`, and calls `command` for the rest.
  void feed(std::span<const std::byte> typed, std::vector<std::byte>& out,
            const std::function<void(ConsoleCommand)>& command) {
    for (const std::byte key : typed) {
      if (!std::exchange(escaped_, false)) {
        if (key == kEscape)
          escaped_ = true;
        else
          out.push_back(key);
        continue;
      }
      switch (std::to_integer<char>(key)) {
        case 'x':
          command(ConsoleCommand::quit);
          break;
        case 'p':
          command(ConsoleCommand::power_button);
          break;
        case 'h':
          command(ConsoleCommand::help);
          break;
        case 0x01:
          out.push_back(kEscape);
          break;
        default:
          break;  // as at other terminals, an unknown sequence is swallowed
      }
    }
  }

 private:
  bool escaped_ = false;  // the last key was Ctrl-A
};

// A console on a pair of file descriptors: the terminal, a pseudo-terminal or a socket's client.
class FdConsole : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> bytes) final {
    const std::lock_guard lock(output_mutex_);
    if (output_ < 0) return bytes.size();  // nobody listens: as with a cable that is not plugged in
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t written = write_some(bytes.subspan(done));
      if (written >= 0) {
        done += static_cast<std::size_t>(written);
        continue;
      }
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        want_output();
        return done;
      }
      return bytes.size();  // the reader is gone (EPIPE, EIO): what it would have read is lost
    }
    return done;
  }

  void start(EventLoop& loop, Input input, std::function<void()> output_ready,
             std::function<void(ConsoleCommand)> command) override {
    loop_ = &loop;
    input_ = std::move(input);
    output_ready_ = std::move(output_ready);
    command_ = std::move(command);
  }

  void input_ready() final {
    if (!input_waits_.exchange(false)) return;
    if (loop_ != nullptr) loop_->post([this] { deliver({}); });
  }

  void stop() override {
    stopped_ = true;
    detach();
  }

  void flush(std::chrono::milliseconds deadline) override {
    // Everything that write() took is in the kernel already.
    static_cast<void>(deadline);
  }

 protected:
  // One write() that never blocks.
  virtual ssize_t write_some(std::span<const std::byte> bytes) {
    return ::write(output_, bytes.data(), bytes.size());
  }

  void attach(int in, int out) {
    {
      const std::lock_guard lock(output_mutex_);
      output_ = out;
    }
    input_fd_ = in;
    watch_input();
  }

  void detach() {
    if (input_watch_) loop_->unwatch(*std::exchange(input_watch_, std::nullopt));
    std::optional<devices::WatchId> watch;
    {
      const std::lock_guard lock(output_mutex_);
      output_ = -1;
      watch = std::exchange(output_watch_, std::nullopt);
    }
    if (watch) loop_->unwatch(*watch);
    input_fd_ = -1;
  }

  // The peer hung up or input ended. Main thread.
  virtual void input_ended() {
    if (input_watch_) loop_->unwatch(*std::exchange(input_watch_, std::nullopt));
  }

  void use_escapes() { escapes_ = true; }
  [[nodiscard]] EventLoop* loop() const { return loop_; }
  void tell_output_ready() const {
    if (output_ready_) output_ready_();
  }

 private:
  void watch_input() {
    if (input_fd_ < 0 || input_watch_ || stopped_) return;
    input_watch_ = loop_->watch(input_fd_, EPOLLIN, [this](std::uint32_t) { read_input(); });
  }

  void read_input() {
    std::array<std::byte, 4096> buffer;
    const ssize_t got = ::read(input_fd_, buffer.data(), buffer.size());
    if (got > 0) return deliver({buffer.data(), static_cast<std::size_t>(got)});
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    input_ended();
  }

  // Offers waiting and new input to the UART; stops reading while it has no room.
  void deliver(std::span<const std::byte> typed) {
    if (escapes_)
      filter_.feed(typed, pending_, command_);
    else
      pending_.insert(pending_.end(), typed.begin(), typed.end());
    if (pending_.empty()) return watch_input();
    input_waits_.store(true);  // before the offer: room may come up while it is made
    const std::size_t taken = input_(pending_);
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(taken));
    if (pending_.empty()) {
      input_waits_.store(false);
      watch_input();
    } else if (input_watch_) {
      // A person's Ctrl-A x must work even if the guest reads nothing, so a terminal is read on as
      // long as little is waiting.
      constexpr std::size_t kTypedAhead = 4096;
      if (!escapes_ || pending_.size() > kTypedAhead)
        loop_->unwatch(*std::exchange(input_watch_, std::nullopt));
    }
  }

  // Under output_mutex_.
  void want_output() {
    if (loop_ == nullptr || output_watch_ || output_asked_.exchange(true)) return;
    loop_->post([this] {
      output_asked_.store(false);
      const std::lock_guard lock(output_mutex_);
      if (output_ < 0 || output_watch_ || stopped_) return;
      output_watch_ = loop_->watch(output_, EPOLLOUT, [this](std::uint32_t) {
        std::optional<devices::WatchId> watch;
        {
          const std::lock_guard inner(output_mutex_);
          watch = std::exchange(output_watch_, std::nullopt);
        }
        if (watch) loop_->unwatch(*watch);
        output_ready_();
      });
    });
  }

  EventLoop* loop_ = nullptr;  // set once by start()
  Input input_;
  std::function<void()> output_ready_;
  std::function<void(ConsoleCommand)> command_;
  bool escapes_ = false;

  std::mutex output_mutex_;  // guards the next two
  int output_ = -1;
  std::optional<devices::WatchId> output_watch_;
  std::atomic<bool> output_asked_{false};  // any thread; a post of want_output() is under way

  // Main thread only:
  int input_fd_ = -1;
  std::optional<devices::WatchId> input_watch_;
  std::vector<std::byte> pending_;  // typed, not yet taken by the UART
  EscapeFilter filter_;
  bool stopped_ = false;

  std::atomic<bool> input_waits_{false};  // any thread; pending_ is not empty
};

// The terminal's settings before it was made raw; restored on every way out, _exit and fatal
// signals included, hence outside any object.
struct SavedTerminal {
  std::atomic<bool> saved{false};
  termios settings{};
  int in_flags = -1;
  int out_flags = -1;
};
SavedTerminal saved_terminal;  // NOLINT: read by a signal handler

void restore_settings() {
  if (!saved_terminal.saved.exchange(false)) return;
  ::tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_terminal.settings);
}

void restore_flags() {
  if (saved_terminal.in_flags >= 0) ::fcntl(STDIN_FILENO, F_SETFL, saved_terminal.in_flags);
  if (saved_terminal.out_flags >= 0) ::fcntl(STDOUT_FILENO, F_SETFL, saved_terminal.out_flags);
  saved_terminal.in_flags = saved_terminal.out_flags = -1;
}

void restore_and_die(int signal) {
  restore_settings();
  restore_flags();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

class StdioConsole final : public FdConsole {
 public:
  ~StdioConsole() override { restore(); }

  void start(EventLoop& loop, Input input, std::function<void()> output_ready,
             std::function<void(ConsoleCommand)> command) override {
    FdConsole::start(loop, std::move(input), std::move(output_ready), std::move(command));
    const int in_flags = ::fcntl(STDIN_FILENO, F_GETFL);  // -1: closed
    if (::isatty(STDIN_FILENO) == 1) {
      make_raw();
      use_escapes();
    }
    const int out_flags = ::fcntl(STDOUT_FILENO, F_GETFL);
    struct stat out {};
    const bool regular_out = ::fstat(STDOUT_FILENO, &out) == 0 && S_ISREG(out.st_mode);
    // Output must not block a vCPU; the flag is on the open file, so it is put back at the end.
    if (out_flags >= 0 && !regular_out) {
      saved_terminal.out_flags = out_flags;
      ::fcntl(STDOUT_FILENO, F_SETFL, out_flags | O_NONBLOCK);
    }
    struct stat in {};
    const bool readable =
        in_flags >= 0 && (in_flags & O_ACCMODE) != O_WRONLY && ::fstat(STDIN_FILENO, &in) == 0;
    if (readable && !S_ISREG(in.st_mode) && !is_null(in)) {
      attach(STDIN_FILENO, out_flags >= 0 ? STDOUT_FILENO : -1);
      return;
    }
    attach(-1, out_flags >= 0 ? STDOUT_FILENO : -1);
    if (readable && S_ISREG(in.st_mode)) feed_file(in.st_size);
  }

  void stop() override {
    FdConsole::stop();
    restore();
  }

  void flush(std::chrono::milliseconds) override {
    if (::isatty(STDOUT_FILENO) == 1) ::tcdrain(STDOUT_FILENO);
  }

  [[nodiscard]] std::string description() const override { return {}; }

 private:
  static bool is_null(const struct stat& file) {
    struct stat null {};
    return ::stat("/dev/null", &null) == 0 && S_ISCHR(file.st_mode) && file.st_rdev == null.st_rdev;
  }

  // A regular file cannot be polled: it goes through a pipe of its own size, bounded.
  void feed_file(off_t size) {
    constexpr off_t kMost = 1 << 20;
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return;
    file_pipe_ = UniqueFd(ends[0]);
    const UniqueFd write_end(ends[1]);
    ::fcntl(write_end.get(), F_SETPIPE_SZ, static_cast<int>(std::min(size, kMost) + 4096));
    std::array<char, 4096> block;
    for (ssize_t got; (got = ::read(STDIN_FILENO, block.data(), block.size())) > 0;)
      if (::write(write_end.get(), block.data(), static_cast<std::size_t>(got)) != got) break;
    attach(file_pipe_.get(), STDOUT_FILENO);
  }

  static void make_raw() {
    termios settings{};
    if (::tcgetattr(STDIN_FILENO, &settings) != 0) return;
    saved_terminal.settings = settings;
    saved_terminal.saved.store(true);
    static std::once_flag once;
    std::call_once(once, [] {
      std::atexit(restore_settings);
      for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGHUP, SIGQUIT})
        ::signal(signal, restore_and_die);
    });
    ::cfmakeraw(&settings);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &settings);
    log::set_raw_terminal(true);
  }

  void restore() {
    restore_settings();
    restore_flags();
    log::set_raw_terminal(false);
  }

  UniqueFd file_pipe_;  // a regular file on standard input, as a pipe
};

// Output to a file, up to a limit; no input.
class FileConsole final : public ConsoleBackend {
 public:
  FileConsole(UniqueFd file, std::string path, std::uint64_t limit)
      : file_(std::move(file)), path_(std::move(path)), left_(limit) {}

  std::size_t write(std::span<const std::byte> bytes) override {
    const std::lock_guard lock(mutex_);
    const auto part = bytes.first(std::min<std::uint64_t>(bytes.size(), left_));
    std::size_t done = 0;
    while (done < part.size()) {
      const ssize_t written = ::write(file_.get(), part.data() + done, part.size() - done);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) break;
      done += static_cast<std::size_t>(written);
    }
    left_ -= part.size();
    dropped_ += bytes.size() - done;
    if (dropped_ > 0 && !std::exchange(told_, true))
      log::warning(
          "console file {} has reached its limit (or its disk is full); later output is "
          "dropped",
          path_);
    return bytes.size();
  }

  void start(EventLoop&, Input, std::function<void()>,
             std::function<void(ConsoleCommand)>) override {}
  void input_ready() override {}
  void stop() override {}
  void flush(std::chrono::milliseconds) override {}
  [[nodiscard]] std::string description() const override {
    return fmt::format("console output goes to {}", path_);
  }

 private:
  std::mutex mutex_;  // guards the rest
  UniqueFd file_;
  std::string path_;
  std::uint64_t left_;
  std::uint64_t dropped_ = 0;
  bool told_ = false;
};

class PtyConsole final : public FdConsole {
 public:
  PtyConsole(UniqueFd master, UniqueFd slave, std::string name, std::string link)
      : master_(std::move(master)),
        slave_(std::move(slave)),
        name_(std::move(name)),
        link_(std::move(link)) {
    if (!link_.empty()) removed_ = box::RemovedOnBreach(link_);
  }
  ~PtyConsole() override {
    if (!link_.empty()) ::unlink(link_.c_str());
  }

  void start(EventLoop& loop, Input input, std::function<void()> output_ready,
             std::function<void(ConsoleCommand)> command) override {
    FdConsole::start(loop, std::move(input), std::move(output_ready), std::move(command));
    attach(master_.get(), master_.get());
  }

  [[nodiscard]] std::string description() const override {
    return fmt::format("console on {}{}", name_, link_.empty() ? "" : " (" + link_ + ")");
  }

 protected:
  // Before anybody opens the terminal, and when its reader is slow, old output is dropped rather
  // than the guest stopped: a pseudo-terminal cannot say whether someone reads it.
  ssize_t write_some(std::span<const std::byte> bytes) override {
    const ssize_t written = ::write(master_.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EAGAIN) {
      ::tcflush(slave_.get(), TCIFLUSH);
      return ::write(master_.get(), bytes.data(), bytes.size());
    }
    return written;
  }

 private:
  UniqueFd master_;
  UniqueFd slave_;  // kept open, so that the master never sees a hang-up
  std::string name_;
  std::string link_;
  box::RemovedOnBreach removed_;
};

class SocketConsole final : public FdConsole {
 public:
  SocketConsole(UniqueFd listener, std::string path)
      : listener_(std::move(listener)), path_(std::move(path)), removed_(path_) {}
  ~SocketConsole() override { ::unlink(path_.c_str()); }

  void start(EventLoop& event_loop, Input input, std::function<void()> output_ready,
             std::function<void(ConsoleCommand)> command) override {
    FdConsole::start(event_loop, std::move(input), std::move(output_ready), std::move(command));
    watch_ = event_loop.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
  }

  void stop() override {
    if (watch_) loop()->unwatch(*std::exchange(watch_, std::nullopt));
    FdConsole::stop();
    client_.reset();
  }

  [[nodiscard]] std::string description() const override {
    return fmt::format("console on the socket {}", path_);
  }

 protected:
  ssize_t write_some(std::span<const std::byte> bytes) override {
    return ::send(client_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  void input_ended() override {
    detach();
    client_.reset();
    tell_output_ready();  // what waited for room goes the way of an unplugged cable
  }

 private:
  void accept() {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client || client_) return;  // one at a time: a second one is closed at once
    client_ = std::move(client);
    attach(client_.get(), client_.get());
  }

  UniqueFd listener_;
  UniqueFd client_;  // main thread; write_some runs only while it is attached
  std::string path_;
  box::RemovedOnBreach removed_;
  std::optional<devices::WatchId> watch_;
};

class NoConsole final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> bytes) override { return bytes.size(); }
  void start(EventLoop&, Input, std::function<void()>,
             std::function<void(ConsoleCommand)>) override {}
  void input_ready() override {}
  void stop() override {}
  void flush(std::chrono::milliseconds) override {}
  [[nodiscard]] std::string description() const override { return {}; }
};

vfio_user::Result<std::unique_ptr<ConsoleBackend>> open_file(const ConsoleConfig& config) {
  UniqueFd file(::open(config.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file)
    return fail(errno, fmt::format("console file {}: {}; name a file in a folder you may write to",
                                   config.path, std::strerror(errno)));
  return std::make_unique<FileConsole>(std::move(file), config.path, config.limit);
}

vfio_user::Result<std::unique_ptr<ConsoleBackend>> open_pty(const ConsoleConfig& config) {
  int master = -1;
  int slave = -1;
  termios raw{};
  ::cfmakeraw(&raw);
  std::array<char, 128> name{};
  if (::openpty(&master, &slave, nullptr, &raw, nullptr) != 0)
    return fail(errno, fmt::format("no pseudo-terminal for the console: {}; is /dev/pts mounted?",
                                   std::strerror(errno)));
  UniqueFd master_fd(master);
  UniqueFd slave_fd(slave);
  ::ttyname_r(slave, name.data(), name.size());
  ::fcntl(master, F_SETFL, O_NONBLOCK);
  ::fcntl(master, F_SETFD, FD_CLOEXEC);
  ::fcntl(slave, F_SETFD, FD_CLOEXEC);
  if (!config.path.empty()) {
    struct stat old {};
    if (::lstat(config.path.c_str(), &old) == 0 && S_ISLNK(old.st_mode))
      ::unlink(config.path.c_str());
    if (::symlink(name.data(), config.path.c_str()) != 0)
      return fail(errno, fmt::format("console link {}: {}; name a path that does not exist yet",
                                     config.path, std::strerror(errno)));
  }
  return std::make_unique<PtyConsole>(std::move(master_fd), std::move(slave_fd), name.data(),
                                      config.path);
}

vfio_user::Result<std::unique_ptr<ConsoleBackend>> open_socket(const ConsoleConfig& config) {
  auto listener = vfio_user::listen_unix(config.path, 1);
  if (!listener) return tl::unexpected(listener.error());
  ::fcntl(listener->get(), F_SETFL, O_NONBLOCK);
  return std::make_unique<SocketConsole>(std::move(*listener), config.path);
}

}  // namespace

void restore_terminal() {
  restore_settings();
  restore_flags();
}

vfio_user::Result<std::unique_ptr<ConsoleBackend>> ConsoleBackend::open(
    const ConsoleConfig& config) {
  switch (config.type) {
    case ConsoleType::stdio:
      return std::make_unique<StdioConsole>();
    case ConsoleType::file:
      return open_file(config);
    case ConsoleType::pty:
      return open_pty(config);
    case ConsoleType::socket:
      return open_socket(config);
    case ConsoleType::none:
      break;
  }
  return std::make_unique<NoConsole>();
}

}  // namespace outboard::vmm
