// The user behind a device's socket, at the start and after a loss (issue 5, item 7).
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/micro/guest_run.h"
#include "vfio_user/unique_fd.h"

using namespace outboard;
using namespace outboard::micro;
using vmm::ExitStatus;
using vmm::ServerUser;
namespace fs = std::filesystem;

namespace {

constexpr unsigned kOther = 12345;

// outboard-nvme as that user, killed with the object.
class Disk {
 public:
  Disk(const std::string& socket, unsigned user) : socket_(socket) {
    const vfio_user::UniqueFd program(::open(OUTBOARD_NVME_PROGRAM, O_PATH | O_CLOEXEC));
    REQUIRE(program);
    pid_ = ::fork();
    if (pid_ == 0) {
      if (user != 0 && (::setgroups(0, nullptr) != 0 || ::setgid(user) != 0 || ::setuid(user) != 0))
        ::_exit(126);
      std::array<const char*, 6> words = {"outboard-nvme", "--socket", socket_.c_str(),
                                          "--memory",      "16M",      nullptr};
      ::fexecve(program.get(), const_cast<char**>(words.data()), ::environ);
      ::_exit(127);
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!fs::exists(socket_) && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    REQUIRE(fs::exists(socket_));
    fs::permissions(socket_, fs::perms(0666));
  }
  ~Disk() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    fs::remove(socket_);
  }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

 private:
  std::string socket_;
  pid_t pid_ = -1;
};

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "outboard-user.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
    fs::permissions(path, fs::perms::all);
  }
  ~Folder() { fs::remove_all(path); }
  std::string path;
};

vmm::MachineConfig config_with(const std::string& guest, const std::string& socket) {
  auto config = guest_config(guest);
  vmm::DeviceConfig device;
  device.name = "disk";
  device.socket = socket;
  config.devices.push_back(device);
  return config;
}

bool is_root() {
  if (::geteuid() == 0) return true;
  MESSAGE("not tested: only root can be another user");
  return false;
}

}  // namespace

TEST_CASE("a server of another user: status 7 at the start, unless server_uid names the user") {
  if (!is_root()) return;
  const Folder folder;
  const std::string socket = folder.path + "/disk.sock";
  const Disk disk(socket, kOther);
  auto config = config_with("hello", socket);
  GuestRun refused;
  run_guest(config, refused);
  CHECK(refused.reason.exit_code() == 7);
  CHECK_MESSAGE(refused.reason.message.starts_with("device 'disk': socket '" + socket +
                                                   "': its server runs as user 12345"),
                refused.reason.message);
  config.devices[0].server_user = {ServerUser::Kind::uid, kOther};
  GuestRun accepted;
  run_guest(config, accepted);
  CHECK_MESSAGE(accepted.reason.status == ExitStatus::powered_off, accepted.reason.message);
}

TEST_CASE(
    "a server that comes back as another user is refused, and the device is given up in time") {
  if (!is_root()) return;
  const Folder folder;
  const std::string socket = folder.path + "/disk.sock";
  std::optional<Disk> disk(std::in_place, socket, 0);
  auto config = config_with("nvme_resume", socket);
  config.devices[0].on_disconnect = vmm::OnDisconnect::reconnect;
  config.devices[0].reconnect = {.hold = std::chrono::seconds(9),
                                 .deadline = std::chrono::seconds(3),
                                 .give_up = vmm::OnGiveUp::stop};
  GuestRun run;
  bool ready = false;  // in the vCPU's place
  run_guest(config, run, [&](vmm::Machine&, vmm::EventLoop& loop, MemoryConsole& console) {
    console.on_output([&](const std::string& text) {
      if (ready || !text.ends_with("ready\n")) return;
      ready = true;
      loop.post([&] {
        console.outside().run([&] {
          disk.reset();
          disk.emplace(socket, kOther);
        });
      });
    });
  });
  CHECK(run.reason.exit_code() == 8);
  CHECK_MESSAGE(run.reason.message.find("the last attempt: socket '" + socket +
                                        "': its server runs as user 12345") != std::string::npos,
                run.reason.message);
}
