#include "tools/bench/access_session.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/access_guest.h"

namespace outboard::bench {
namespace {

using vfio_user::Error;
using vfio_user::Result;

constexpr int kEndPatience = 30'000;  // ms

tl::unexpected<Error> fail(int code, std::string message) {
  return tl::unexpected(Error{Error::Kind::system, code, std::move(message)});
}

std::string machine_text(const Board& board, const std::string& kernel,
                         const std::string& nvme_socket) {
  const auto device = [](const char* name, const std::string& socket) {
    // The board answers when the bench has an order: it may take its time.
    return fmt::format(
        "[[device]]\nname = \"{}\"\nsocket = \"{}\"\ntimeouts = {{ access = \"300s\" }}\n", name,
        socket);
  };
  std::string text = fmt::format(
      "[machine]\nmemory = \"64M\"\n[kernel]\npath = \"{}\"\n[console]\ntype = \"none\"\n", kernel);
  text += device("board", board.board_socket()) + device("target", board.target_socket());
  if (!nvme_socket.empty()) text += device("nvme", nvme_socket);
  return text;
}

}  // namespace

Result<std::unique_ptr<Session>> Session::start(const Options& options) {
  std::string folder = (std::filesystem::temp_directory_path() / "outboard-bench-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) {
    return fail(errno, fmt::format("cannot make a folder {}: {}", folder, std::strerror(errno)));
  }
  std::unique_ptr<Session> session(new Session());
  session->folder_ = folder;
  auto board = Board::start(folder, options.placement);
  if (!board) return tl::unexpected(board.error());
  session->board_ = std::move(*board);

  const std::string kernel = folder + "/guest.elf";
  const auto image = guest_image();
  std::ofstream(kernel, std::ios::binary)
      .write(reinterpret_cast<const char*>(image.data()),
             static_cast<std::streamsize>(image.size()));
  std::ofstream(folder + "/machine.toml")
      << machine_text(*session->board_, kernel, options.nvme_socket);

  if (auto done = session->spawn(options); !done) return tl::unexpected(done.error());
  if (auto done = session->wait_for_guest(); !done) return tl::unexpected(done.error());
  return session;
}

Session::~Session() {
  clean_up();
}

void Session::clean_up() {
  if (outboard_ > 0) {
    ::kill(outboard_, SIGKILL);
    while (::waitpid(outboard_, nullptr, 0) < 0 && errno == EINTR) {
    }
    outboard_ = -1;
  }
  board_.reset();
  if (folder_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
  folder_.clear();
}

Result<void> Session::spawn(const Options& options) {
  log_.reset(::memfd_create("outboard-bench-log", MFD_CLOEXEC));
  const std::string config = folder_ + "/machine.toml";
  const std::string report = report_path();
  const std::array<const char*, 6> words = {
      options.outboard.c_str(), "run", config.c_str(), "--boot-report", report.c_str(), nullptr};
  const pid_t parent = ::getpid();
  outboard_ = ::fork();
  if (outboard_ < 0) return fail(errno, fmt::format("fork: {}", std::strerror(errno)));
  if (outboard_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent || !bind_to(options.placement.vmm)) ::_exit(127);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ::dup2(null, 0);
    ::dup2(null, 1);
    ::dup2(log_.get(), 2);
    ::execvp(words[0], const_cast<char* const*>(words.data()));
    ::_exit(127);
  }
  pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, outboard_, 0)));
  return {};
}

std::string Session::report_path() const {
  return folder_ + "/report.json";
}

std::string Session::said() const {
  std::string text(static_cast<std::size_t>(std::max<off_t>(::lseek(log_.get(), 0, SEEK_END), 0)),
                   '\0');
  const ssize_t got = ::pread(log_.get(), text.data(), text.size(), 0);
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return text;
}

Result<void> Session::wait_for_guest() {
  auto asked = board_->wait_for_guest(pidfd_.get());
  if (!asked) {
    const std::string log = said();
    return fail(asked.error().code, fmt::format("{}{}{}", asked.error().message,
                                                log.empty() ? "" : "; outboard said:\n", log));
  }
  ++asked_;
  if (board_->shared().end != 0) tick_.add(board_->shared().end, *asked);
  return {};
}

Result<std::vector<double>> Session::run(const Order& order) {
  put_order(order, board_->shared());
  board_->give(true);
  if (auto done = wait_for_guest(); !done) return tl::unexpected(done.error());
  if (const std::string failure = failure_of(board_->shared()); !failure.empty()) {
    return fail(EIO, "in the guest: " + failure);
  }
  return ticks_of(order, board_->memory());
}

Result<Counts> Session::end() {
  board_->give(false);
  pollfd ended{pidfd_.get(), POLLIN, 0};
  if (::poll(&ended, 1, kEndPatience) <= 0) return fail(ETIMEDOUT, "outboard does not end");
  int status = 0;
  while (::waitpid(outboard_, &status, 0) < 0 && errno == EINTR) {
  }
  outboard_ = -1;
  const std::string log = said();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return fail(ECHILD, "outboard ended with an error; it said:\n" + log);
  }
  std::ifstream file(report_path());
  auto counts = parse_counts(std::string(std::istreambuf_iterator<char>(file), {}));
  if (!counts) return counts;
  const auto asked = static_cast<double>(asked_);
  const auto set_up = static_cast<double>(board_->shared().accesses);
  return *counts - Counts{asked + set_up, asked + set_up, asked + set_up};
}

}  // namespace outboard::bench
