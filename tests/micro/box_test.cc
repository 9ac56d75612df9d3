// The program in its sandbox, which is the default: every way a guest can end it, its consoles, and
// what is left to it (issue 5, item 7).
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "tests/micro/guest_run.h"
#include "tests/unit/boxed_child.h"
#include "vfio_user/transport.h"
#include "vfio_user/unique_fd.h"
#include "vmm/sandbox.h"

using namespace outboard;
using namespace outboard::micro;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using vfio_user::UniqueFd;
using Clock = std::chrono::steady_clock;

namespace {

// `outboard run` on one of the small guests, with its console on a pseudo-terminal, a pipe or where
// the configuration says; ends with this object.
class Run {
 public:
  explicit Run(const std::string& guest, const std::string& toml = {},
               const std::vector<std::string>& options = {}, int inherited = -1) {
    std::string folder = (fs::temp_directory_path() / "outboard-box.XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) throw std::runtime_error("mkdtemp");
    folder_ = folder;
    std::ofstream(folder_ + "/m.toml") << "[machine]\nmemory = \"128M\"\n[kernel]\npath = \""
                                       << OUTBOARD_GUESTS << "/" << guest << "\"\n"
                                       << toml;
    std::vector<std::string> words = {OUTBOARD_PROGRAM, "run", folder_ + "/m.toml", "--stats"};
    words.insert(words.end(), options.begin(), options.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);

    std::array<int, 2> terminal{};
    REQUIRE(::openpty(&terminal[0], &terminal[1], nullptr, nullptr, nullptr) == 0);
    terminal_.reset(terminal[0]);
    theirs_.reset(terminal[1]);
    ::fcntl(terminal_.get(), F_SETFD, FD_CLOEXEC);
    REQUIRE(::tcgetattr(theirs_.get(), &before_) == 0);
    child_ = ::fork();
    REQUIRE(child_ >= 0);
    if (child_ == 0) {
      const int log = ::open((folder_ + "/log").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
      ::dup2(theirs_.get(), 0);
      ::dup2(theirs_.get(), 1);
      ::dup2(log, 2);
      if (inherited >= 0) ::fcntl(inherited, F_SETFD, 0);
      ::fcntl(theirs_.get(), F_SETFD, FD_CLOEXEC);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
  }
  ~Run() {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
    fs::remove_all(folder_);
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Reads the terminal until it has shown `text`.
  bool shows(const std::string& text, std::chrono::milliseconds limit = 60s) {
    const auto end = Clock::now() + limit;
    while (shown_.find(text) == std::string::npos) {
      pollfd ready{terminal_.get(), POLLIN, 0};
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
      if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0) return false;
      std::array<char, 4096> bytes;
      const ssize_t got = ::read(terminal_.get(), bytes.data(), bytes.size());
      if (got <= 0) return false;
      shown_.append(bytes.data(), static_cast<std::size_t>(got));
    }
    return true;
  }
  void type(const std::string& text) {
    REQUIRE(::write(terminal_.get(), text.data(), text.size()) ==
            static_cast<ssize_t>(text.size()));
  }
  void signal(int number) { ::kill(child_, number); }
  bool logs(const std::string& text, std::chrono::milliseconds limit = 60s) {
    const auto end = Clock::now() + limit;
    while (log().find(text) == std::string::npos) {
      if (Clock::now() > end) return false;
      ::usleep(2000);
    }
    return true;
  }
  // Its exit status, or minus the signal that ended it.
  int end() {
    int status = 0;
    REQUIRE(::waitpid(child_, &status, 0) == child_);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  [[nodiscard]] std::string log() const {
    std::ifstream file(folder_ + "/log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  [[nodiscard]] bool terminal_as_before() const {
    termios now{};
    return ::tcgetattr(theirs_.get(), &now) == 0 && now.c_lflag == before_.c_lflag &&
           now.c_iflag == before_.c_iflag && now.c_oflag == before_.c_oflag;
  }
  [[nodiscard]] std::string operator/(const char* name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
  UniqueFd terminal_;
  UniqueFd theirs_;
  termios before_{};
  std::string shown_;
  pid_t child_ = -1;
};

void check_inside(const Run& run) {
  const std::string log = run.log();
  CHECK_MESSAGE(log.find("sandbox: vCPU ") != std::string::npos, log);
  CHECK_MESSAGE(log.find(" system calls; ") != std::string::npos, log);
  CHECK_MESSAGE(log.find("forbids") == std::string::npos, log);
}

}  // namespace

TEST_CASE("every way a guest can end the program happens inside, with its documented status") {
  const struct {
    const char* guest;
    int status;
    const char* shown;
  } ends[] = {
      {"hello", 0, "PASSED"},
      {"exits", 0, "PASSED"},
      {"reboot", 0, "PASSED"},
      {"firmware_reboot", 0, "PASSED"},
      {"smp", 0, "PASSED"},
      {"triple_fault", 9, "about to fault"},
      {"no_code", 10, "about to jump"},
  };
  for (const auto& one : ends) {
    CAPTURE(one.guest);
    Run run(one.guest);
    CHECK(run.shows(one.shown));
    CHECK_MESSAGE(run.end() == one.status, run.log());
    check_inside(run);
    CHECK(run.terminal_as_before());
  }
}

TEST_CASE("signals and keys end it inside: power button, deadline, second signal, Ctrl-A x") {
  {
    Run run("power_button");
    REQUIRE(run.shows("ready"));
    run.signal(SIGTERM);
    CHECK(run.end() == 0);
    check_inside(run);
  }
  {
    Run run("deaf", {}, {"--set", "machine.power_button_deadline=100ms"});
    REQUIRE(run.shows("ready"));
    run.signal(SIGUSR1);
    REQUIRE(run.logs("statistics:"));
    run.signal(SIGINT);
    CHECK(run.end() == 11);
    check_inside(run);
  }
  {
    Run run("deaf");
    REQUIRE(run.shows("ready"));
    run.signal(SIGTERM);
    REQUIRE(run.logs("pressing the power button"));
    run.signal(SIGTERM);
    CHECK(run.end() == 128 + SIGTERM);
    check_inside(run);
  }
  {
    Run run("deaf");
    REQUIRE(run.shows("ready"));
    run.type("\x01x");
    CHECK(run.end() == 0);
    check_inside(run);
    CHECK(run.terminal_as_before());
  }
}

TEST_CASE("every console works inside, and leaves no socket and no link behind") {
  {
    Run run("echo");
    REQUIRE(run.shows("ready"));
    run.type("terminal q");
    CHECK(run.shows("PASSED"));
    CHECK(run.end() == 0);
  }
  {
    Run run("hello", "[console]\ntype = \"file\"\npath = \"console\"\n");
    CHECK(run.end() == 0);
    check_inside(run);
    std::ifstream console(run / "console");
    CHECK(std::string(std::istreambuf_iterator<char>(console), {}).ends_with("PASSED\n"));
  }
  {
    Run run("echo", "[console]\ntype = \"socket\"\npath = \"console\"\n");
    REQUIRE(run.logs("console on the socket"));
    auto socket = vfio_user::connect_unix(run / "console", Clock::now() + 60s);
    REQUIRE_MESSAGE(socket, run.log());
    CHECK(::send(socket->get(), "socket q", 8, MSG_NOSIGNAL) == 8);
    CHECK_MESSAGE(run.end() == 0, run.log());
    check_inside(run);
    CHECK_FALSE(fs::exists(fs::symlink_status(run / "console")));
  }
  {
    Run run("echo", "[console]\ntype = \"pty\"\npath = \"console\"\n");
    REQUIRE(run.logs("console on /dev/pts/"));
    const UniqueFd terminal(::open((run / "console").c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(terminal);
    CHECK(::write(terminal.get(), "pty q", 5) == 5);
    CHECK_MESSAGE(run.end() == 0, run.log());
    check_inside(run);
    CHECK_FALSE(fs::exists(fs::symlink_status(run / "console")));
  }
}

TEST_CASE("a descriptor that it inherits and does not know is closed while the guest runs") {
  for (const bool sandboxed : {true, false}) {
    CAPTURE(sandboxed);
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    std::vector<std::string> options;
    if (!sandboxed) options = {"--sandbox", "off"};
    Run run("deaf", {}, options, write_end.get());
    write_end.reset();
    REQUIRE(run.shows("ready"));
    pollfd ready{read_end.get(), POLLIN, 0};
    // Its last writer is gone, or still there.
    CHECK((::poll(&ready, 1, 0) == 1) == sandboxed);
    run.type("\x01x");
    CHECK(run.end() == 0);
    CHECK((run.log().find("sandbox: off") == std::string::npos) == sandboxed);
  }
}

namespace {

// A console that does on the vCPU's thread what no vCPU may.
class Burglar final : public vmm::ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> bytes) override {
    ::socket(AF_INET, SOCK_STREAM, 0);
    return bytes.size();
  }
  void start(devices::EventLoop&, Input, std::function<void()>,
             std::function<void(vmm::ConsoleCommand)>) override {}
  void input_ready() override {}
  void stop() override {}
  void flush(std::chrono::milliseconds) override {}
  std::string description() const override { return {}; }
};

}  // namespace

TEST_CASE("a vCPU that does what it may not ends the machine: status 12, a line with its name") {
  const auto outcome = box::test::in_child([] {
    box::watch_for_breaches(
        {.program = "outboard", .exit_status = vmm::to_int(vmm::ExitStatus::sandbox)});
    const auto config = guest_config("hello");
    auto loop = vmm::EventLoop::create();
    auto sandbox = vmm::Sandbox::create(config);
    Burglar console;
    vmm::Marks marks;
    if (!loop || !sandbox) ::_exit(98);
    auto machine = vmm::Machine::create(
        config, {.loop = **loop, .console = console, .marks = marks, .sandbox = sandbox->get()});
    if (!machine) ::_exit(97);
    static_cast<void>((*machine)->run());
  });
  CHECK(outcome.status == 12);
  CHECK_MESSAGE(outcome.error.starts_with("outboard: error: the sandbox forbids thread 'vcpu0' "
                                          "(vCPU) the system call socket "),
                outcome.error);
}
