// A device's server dies and comes back under a running guest (issue 5, items 1 and 3).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include <doctest/doctest.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/micro/guest_run.h"
#include "tests/micro/peer.h"
#include "vfio_user/transport.h"
#include "vmm/commands.h"
#include "vmm/exit_status.h"

using namespace outboard;
using namespace outboard::micro;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;
using vmm::ExitStatus;

namespace {

bool full() {
  return std::getenv("OUTBOARD_FULL") != nullptr;
}

vmm::MachineConfig config_with(const std::string& guest, const Peer& peer) {
  auto config = guest_config(guest);
  vmm::DeviceConfig device;
  device.name = "peer";
  device.socket = peer.socket();
  device.on_disconnect = vmm::OnDisconnect::reconnect;
  device.reconnect.last_delay = 20ms;  // the tests' servers die more often than the back-off likes
  config.devices.push_back(device);
  return config;
}

// A server at one place, that can die and be another one.
class Server {
 public:
  explicit Server(PeerOptions options = {}) : options_(std::move(options)) {
    std::string folder = (fs::temp_directory_path() / "outboard-server.XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) throw std::runtime_error("mkdtemp");
    folder_ = folder;
    options_.socket = folder + "/device.sock";
    come_back();
  }
  ~Server() {
    peer_.reset();
    fs::remove_all(folder_);
  }
  Peer& operator*() { return *peer_; }
  Peer* operator->() { return peer_.get(); }
  void die() { peer_.reset(); }
  void come_back() { peer_ = std::make_unique<Peer>(options_); }

 private:
  PeerOptions options_;
  std::unique_ptr<Peer> peer_;
  fs::path folder_;
};

template <class Truth>
bool wait_until(const Truth& truth, std::chrono::milliseconds limit = 30s) {
  const auto end = Clock::now() + limit;
  while (!truth()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

std::size_t entries(const char* folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

std::size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  return static_cast<std::size_t>(
      std::count(std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>(), '\n'));
}

struct Footprint {
  std::size_t fds = entries("/proc/self/fd");
  std::size_t threads = entries("/proc/self/task");
  std::size_t maps = mappings();
};

// The line of the statistics about the device's server.
std::string server_line(const GuestRun& run) {
  const auto begin = run.statistics.find("device 'peer': server ");
  if (begin == std::string::npos) return {};
  return run.statistics.substr(begin, run.statistics.find('\n', begin) - begin);
}

// Runs `action` on a thread of its own once the guest is ready.
class Beside {
 public:
  using Action = std::function<void(vmm::Machine&, vmm::EventLoop&, MemoryConsole&)>;

  explicit Beside(Action action) : action_(std::move(action)) {}
  ~Beside() {
    if (thread_.joinable()) thread_.join();
  }
  WithMachine start() {
    return [this](vmm::Machine& machine, vmm::EventLoop& loop, MemoryConsole& console) {
      console.on_output([this](const std::string& text) {
        if (text.starts_with("ready\n")) ready_ = true;
      });
      thread_ = std::thread([this, &machine, &loop, &console] {
        if (wait_until([this] { return ready_.load(); })) action_(machine, loop, console);
      });
    };
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  const Action action_;
  std::atomic<bool> ready_{false};
  std::thread thread_;
};

void end_guest(vmm::EventLoop& loop, MemoryConsole& console) {
  loop.post([&console] { console.send("x"); });
}

}  // namespace

TEST_CASE("a server that dies again and again while the guest works: it sees the device, always") {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    const int deaths = full() ? 500 : 40;
    Server server({.mapped_bar2 = mapped});
    GuestRun run;
    auto config = config_with("reconnect", *server);
    config.vcpus = 2;
    std::optional<Footprint> first;
    Footprint last;
    Beside killer([&](vmm::Machine&, vmm::EventLoop& loop, MemoryConsole& console) {
      for (int i = 0; i < deaths; ++i) {
        // In the middle of its work, at a moment that differs from time to time.
        const std::uint64_t enough = server->accesses() + 50 + 7 * static_cast<unsigned>(i % 10);
        if (!wait_until([&] { return server->accesses() >= enough; })) break;
        if (i == 1) first.emplace();
        if (i == deaths - 1) last = Footprint();
        server.die();
        server.come_back();
      }
      (void)wait_until([&] { return server->accesses() > 50; });
      end_guest(loop, console);
    });
    run_guest(config, run, killer.start(), 300s);
    killer.join();
    CHECK_MESSAGE(run.reason.status == ExitStatus::powered_off, run.reason.message);
    CHECK_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
    const std::string line = server_line(run);
    CHECK_MESSAGE(line.find(fmt::format("server ready, lost {} times, back {} times (0 resumed",
                                        deaths, deaths)) != std::string::npos,
                  run.statistics);
    REQUIRE(first);
    CHECK(last.fds == first->fds);
    CHECK(last.threads == first->threads);
    CHECK(last.maps <= first->maps + 4);  // of the allocator
    MESSAGE(run.console << line);
  }
}

TEST_CASE(
    "a hold keeps nobody but who asks the device; and a machine that is ended does not wait") {
  Server gone;
  Server other;
  GuestRun run;
  auto config = config_with("neighbour", *gone);
  config.vcpus = 2;
  config.devices.push_back(config.devices[0]);
  config.devices[1].name = "other";
  config.devices[1].socket = other->socket();
  Clock::time_point asked;
  Beside killer([&](vmm::Machine& machine, vmm::EventLoop&, MemoryConsole&) {
    CHECK(wait_until([&] { return gone->accesses() > 100; }));
    gone.die();
    const std::uint64_t before = other->accesses();
    CHECK(wait_until([&] { return other->accesses() > before + 500; }, 6s));  // the hold is 8 s
    asked = Clock::now();
    machine.request_stop({ExitStatus::signal_base, SIGINT, "ended by SIGINT"});
  });
  run_guest(config, run, killer.start());
  const auto took = Clock::now() - asked;
  CHECK(run.reason.exit_code() == 128 + SIGINT);
  CHECK(took < 2s);
  CHECK_MESSAGE(run.console == "ready\n", run.console);
}

TEST_CASE("a server that does not come back: given up at the deadline, as the configuration says") {
  for (const auto give_up : {vmm::OnGiveUp::detach, vmm::OnGiveUp::stop}) {
    CAPTURE(static_cast<int>(give_up));
    Server server;
    GuestRun run;
    auto config = config_with("orphan", *server);
    const bool detach = give_up == vmm::OnGiveUp::detach;
    config.devices[0].reconnect = {.hold = detach ? 100ms : 5s,  // the guest must not end first
                                   .deadline = 400ms,
                                   .first_delay = 5ms,
                                   .last_delay = 20ms,
                                   .give_up = give_up};
    Beside killer([&](vmm::Machine&, vmm::EventLoop&, MemoryConsole&) { server.die(); });
    run_guest(config, run, killer.start());
    if (detach) {
      CHECK_MESSAGE(run.console.ends_with("PASSED\n"), run.console);  // all ones, after the hold
    } else {
      CHECK(run.reason.exit_code() == 8);
      CHECK_MESSAGE(
          run.reason.message.starts_with(
              "device 'peer' is lost: its server was not back within 400 ms; the last attempt: "),
          run.reason.message);
    }
  }
}

TEST_CASE(
    "the guest reboots while its device's server is gone, and finds the device when it is back") {
  Server server;
  GuestRun run;
  auto config = config_with("reboot_once", *server);
  config.devices[0].timeouts.reset = 50ms;
  std::atomic<bool> dead{false};
  run_guest(config, run, [&](vmm::Machine&, vmm::EventLoop&, MemoryConsole& console) {
    console.on_output([&](const std::string&) {
      if (!dead.exchange(true)) {
        server.die();
        server.come_back();
      }
    });
  });
  CHECK_MESSAGE(run.reason.status == ExitStatus::powered_off, run.reason.message);
  CHECK_MESSAGE(run.console.find("device 1b36") != std::string::npos, run.console);
  CHECK_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
}

namespace {

// The program itself, with outboard-nvme as a server that it starts, on a thread of this process;
// and whoever kills that server.
class OwnServer {
 public:
  explicit OwnServer(const std::string& guest, std::string more_words = {}) {
    folder_ = (fs::temp_directory_path() / "outboard-revive.XXXXXX").string();
    REQUIRE(::mkdtemp(folder_.data()) != nullptr);
    std::ofstream(folder_ + "/disk.img") << std::string(4 << 20, '\0');
    if (const auto at = more_words.find("FOLDER"); at != std::string::npos) {
      more_words.replace(at, 6, folder_);
    }
    std::ofstream(folder_ + "/m.toml")
        << "[machine]\nmemory = \"128M\"\n[kernel]\npath = \"" << OUTBOARD_GUESTS << "/" << guest
        << "\"\n[console]\ntype = \"socket\"\npath = \"console\"\n[[device]]\nname = \"peer\"\n"
        << "server = [\"" << OUTBOARD_NVME_PROGRAM << "\", \"--file\", \"" << folder_
        << "/disk.img\", \"--socket\", \"{socket}\"" << more_words
        << "]\non_disconnect = \"reconnect\"\nreconnect = { last_delay = \"20ms\" }\n";
    command_.config.file = folder_ + "/m.toml";
    command_.boot_report = folder_ + "/report.json";
    command_.sandbox = true;
    marks_.stamp(vmm::Mark::process_start);
    machine_ = std::thread([this] {
      status_ = vmm::run_machine(command_, marks_);
      over_ = true;
    });
    CHECK(wait_until([&] {
      auto socket = vfio_user::connect_unix(folder_ + "/console", Clock::now() + 1s);
      if (socket) console_ = std::move(*socket);
      return over_ || console_;
    }));
    CHECK(wait_until([&] {
      return over_ || (read_console(MSG_DONTWAIT) && text_.find("ready\n") != std::string::npos);
    }));
  }
  ~OwnServer() {
    if (machine_.joinable()) machine_.join();
    fs::remove_all(folder_);
  }

  // Kills the server of now, which is another one than the last.
  void kill_after(std::chrono::milliseconds time) {
    pid_t now = 0;
    CHECK(wait_until([&] {
      now = server();
      return over_ || (now != 0 && now != killed_);
    }));
    std::this_thread::sleep_for(time);
    if (now != 0) ::kill(now, SIGKILL);
    killed_ = now;
  }
  // Ends the guest; the device's link in the boot report.
  Json end() {
    (void)::send(console_.get(), "x", 1, MSG_NOSIGNAL);
    while (read_console(0)) {
    }
    machine_.join();
    CHECK(status_ == 0);
    CHECK_MESSAGE(text_.ends_with("PASSED\n"), text_);
    CHECK(child_of("/proc/self") == 0);
    Json link = Json::parse(std::ifstream(command_.boot_report))["devices"][0]["link"];
    MESSAGE(text_.substr(std::min(text_.rfind("rounds"), text_.size())) << link.dump());
    return link;
  }

 private:
  static pid_t child_of(const fs::path& process) {
    std::error_code gone;
    for (const auto& task : fs::directory_iterator(process / "task", gone)) {
      std::ifstream children(task.path() / "children");
      if (pid_t pid = 0; children >> pid) return pid;
    }
    return 0;
  }
  // The only child of the launcher, which is the only child of this process.
  static pid_t server() {
    const pid_t launcher = child_of("/proc/self");
    return launcher == 0 ? 0 : child_of(fs::path("/proc") / std::to_string(launcher));
  }
  bool read_console(int flags) {
    char bytes[256];
    const auto got = ::recv(console_.get(), bytes, sizeof bytes, flags);
    if (got > 0) text_.append(bytes, static_cast<std::size_t>(got));
    return got > 0;
  }

  std::string folder_;
  vmm::RunCommand command_;
  vmm::Marks marks_;
  vfio_user::UniqueFd console_;
  std::string text_;
  pid_t killed_ = 0;
  int status_ = -1;
  std::atomic<bool> over_{false};
  std::thread machine_;
};

// From every loss, but for the last kill: the guest may have ended before its server was back.
void check_recovered(const Json& link) {
  const int left =
      link["losses"].get<int>() - link["resumes"].get<int>() - link["resets"].get<int>();
  CHECK(left == (link["state"] == "ready" ? 0 : 1));
}

}  // namespace

TEST_CASE(
    "a server that outboard started is killed, again and again: it is started anew each time") {
  const int deaths = full() ? 100 : 8;
  OwnServer machine("revive");
  for (int i = 0; i < deaths; ++i) machine.kill_after(i % 2 == 0 ? 500ms : 40ms);
  const Json link = machine.end();
  CHECK(link["losses"] >= 2);  // one that is killed before it serves is no loss
  check_recovered(link);
}

TEST_CASE("outboard-nvme is killed under I/O and resumes: the guest's driver does not notice") {
  for (const char* doorbells : {"page", "shadow", "trap"}) {
    CAPTURE(doorbells);
    const int deaths = full() ? 100 : 8;
    OwnServer machine(
        "nvme_resume",
        std::string(R"(, "--state", "FOLDER/state", "--doorbells", ")") + doorbells + "\"");
    for (int i = 0; i < deaths; ++i) machine.kill_after(i % 2 == 0 ? 500ms : 100ms);
    const Json link = machine.end();
    CHECK(link["losses"] >= 2);
    CHECK(link["resets"] == 0);
    check_recovered(link);
  }
}

TEST_CASE(
    "outboard-nvme is killed under I/O and has forgotten: the guest's driver sets it up again, and "
    "finds what it wrote") {
  for (const std::string doorbells : {"page", "shadow", "trap"}) {
    CAPTURE(doorbells);
    const int deaths = full() ? 100 : 8;
    OwnServer machine("nvme_forgets", R"(, "--doorbells", ")" + doorbells + "\"");
    for (int i = 0; i < deaths; ++i) machine.kill_after(i % 2 == 0 ? 500ms : 100ms);
    const Json link = machine.end();
    CHECK(link["losses"] >= 2);
    CHECK(link["resumes"] == 0);
    check_recovered(link);
  }
}
