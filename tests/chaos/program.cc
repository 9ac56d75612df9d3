#include "tests/chaos/program.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/chaos/disk.h"
#include "tests/chaos/nvme_process.h"

namespace outboard::chaos {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

std::string contents(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

}  // namespace

Footprint footprint_of(pid_t process) {
  const fs::path proc = fs::path("/proc") / std::to_string(process);
  Footprint out;
  out.fds = entries(proc / "fd");
  out.threads = entries(proc / "task");
  const std::string maps = contents(proc / "maps");
  out.mappings = static_cast<std::size_t>(std::ranges::count(maps, '\n'));
  const std::string status = contents(proc / "status");
  const auto at = status.find("RssAnon:");
  if (at != std::string::npos) out.kib = std::stoul(status.substr(at + 8));
  return out;
}

Program::Program(const std::string& config, std::string folder) : folder_(std::move(folder)) {
  const std::string binary = program("outboard");
  const std::string report = folder_ + "/report.json";
  const std::string log = folder_ + "/outboard.log";
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(0);
    const int out = ::open(log.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    ::execl(binary.c_str(), binary.c_str(), "run", config.c_str(), "--boot-report", report.c_str(),
            nullptr);
    ::_exit(127);
  }
}

Program::~Program() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  wait();
}

bool Program::connect_console() {
  for (;;) {
    console_ = connect_to(folder_ + "/console");
    if (console_) return true;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return false;
    }
    std::this_thread::sleep_for(1ms);
  }
}

bool Program::read_some(int milliseconds) {
  pollfd fd{console_.get(), POLLIN, 0};
  if (::poll(&fd, 1, milliseconds) <= 0) return true;
  char bytes[4096];
  const auto got = ::recv(console_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (got > 0) text_.append(bytes, static_cast<std::size_t>(got));
  return got > 0;
}

bool Program::wait_for(const std::string& text, std::chrono::milliseconds patience) {
  const auto end = Clock::now() + patience;
  for (;;) {
    if (const auto at = text_.find(text, seen_); at != std::string::npos) {
      seen_ = at + text.size();
      return true;
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0 || !read_some(static_cast<int>(left))) return false;
  }
}

void Program::skip_output(std::chrono::milliseconds quiet) {
  std::size_t before = 0;
  do {
    before = text_.size();
    (void)read_some(static_cast<int>(quiet.count()));
  } while (text_.size() > before);
  seen_ = text_.size();
}

void Program::type(const std::string& bytes) {
  (void)::send(console_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

int Program::wait() {
  while (console_ && read_some(-1)) {
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string Program::log() const {
  return contents(folder_ + "/outboard.log");
}

nlohmann::json Program::report() const {
  return nlohmann::json::parse(contents(folder_ + "/report.json"));
}

}  // namespace outboard::chaos
