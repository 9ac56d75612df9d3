// Whose process may be behind a device's socket (issue 5, item 7: SO_PEERCRED).
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <doctest/doctest.h>
#include <grp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfio_user/transport.h"
#include "vmm/config.h"
#include "vmm/device_connect.h"
#include "vmm/server_user.h"

using namespace outboard;
using namespace outboard::vmm;
using Kind = ServerUser::Kind;
namespace fs = std::filesystem;

namespace {

constexpr std::uint32_t kOther = 12345;

// A process of another user that listens, takes one client and ends with 0 when the first thing
// that comes from it is its end.
class OtherUser {
 public:
  OtherUser() {
    std::string folder = (fs::temp_directory_path() / "server-user.XXXXXX").string();
    REQUIRE(::mkdtemp(folder.data()) != nullptr);
    fs::permissions(folder, fs::perms::all);
    folder_ = folder;
    socket = folder + "/device.sock";
    std::array<int, 2> ready{};
    REQUIRE(::pipe(ready.data()) == 0);
    pid_ = ::fork();
    if (pid_ == 0) serve(ready[1]);
    ::close(ready[1]);
    char byte = 0;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    ::close(ready[0]);
  }
  ~OtherUser() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    ended();
    fs::remove_all(folder_);
  }
  OtherUser(const OtherUser&) = delete;
  OtherUser& operator=(const OtherUser&) = delete;

  int ended() {
    int status = 0;
    return pid_ > 0 && ::waitpid(std::exchange(pid_, -1), &status, 0) > 0 ? status : -1;
  }

  std::string socket;

 private:
  [[noreturn]] void serve(int ready) const {
    if (::setgroups(0, nullptr) != 0 || ::setgid(kOther) != 0 || ::setuid(kOther) != 0) ::_exit(9);
    const auto listener = vfio_user::listen_unix(socket, 4);
    if (!listener || ::write(ready, "r", 1) != 1) ::_exit(8);
    ::alarm(30);
    const int client = ::accept(listener->get(), nullptr, nullptr);
    char byte = 0;
    ::_exit(::read(client, &byte, 1) == 0 ? 0 : 7);
  }

  fs::path folder_;
  pid_t pid_ = -1;
};

bool is_root() {
  if (::geteuid() == 0) return true;
  MESSAGE("not tested: only root can be another user");
  return false;
}

}  // namespace

TEST_CASE("server_uid is a number, a name, \"self\" or \"any\"") {
  CHECK(parse_server_user("self") == ServerUser{});
  CHECK(parse_server_user("any") == ServerUser{Kind::any, 0});
  CHECK(parse_server_user("1000") == ServerUser{Kind::uid, 1000});
  CHECK(parse_server_user("root") == ServerUser{Kind::uid, 0});
  CHECK(parse_server_user("nobody") == ServerUser{Kind::uid, 65534});
  for (const char* nobody : {"", "no-such-user", "-1", "roo", "root:x", "99999999999"})
    CHECK_MESSAGE(!parse_server_user(nobody), nobody);
  const auto parse = [](const std::string& device) {
    return parse_config("[kernel]\npath = \"k\"\n[[device]]\nname = \"d\"\n" + device, "m.toml",
                        "/", {});
  };
  CHECK(parse("socket = \"s\"\n")->devices[0].server_user == ServerUser{});
  CHECK(parse("socket = \"s\"\nserver_uid = 7\n")->devices[0].server_user ==
        ServerUser{Kind::uid, 7});
  CHECK(parse("socket = \"s\"\nserver_uid = \"any\"\n")->devices[0].server_user.kind == Kind::any);
  const auto fault = [&](const std::string& device) {
    const auto config = parse(device);
    return config ? std::string() : config.error().lines.at(0);
  };
  CHECK(
      fault("socket = \"s\"\nserver_uid = \"nobodi\"\n") ==
      "m.toml:6:14: 'device.0.server_uid' is \"nobodi\", which is no user of /etc/passwd; write a "
      "user id, a name, \"self\" or \"any\"");
  CHECK(fault("socket = \"s\"\nserver_uid = -1\n").find("it must be 0 to") != std::string::npos);
  CHECK(fault("server = [\"x\"]\nserver_uid = \"any\"\n").find("is always checked") !=
        std::string::npos);
}

TEST_CASE(
    "a socket of outboard's own user, or root, is accepted unless another user is asked for") {
  std::array<int, 2> pair{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
  const vfio_user::UniqueFd mine(pair[0]);
  const vfio_user::UniqueFd theirs(pair[1]);
  CHECK(check_server_user(mine.get(), {}));
  CHECK(check_server_user(mine.get(), {Kind::any, 0}));
  CHECK(check_server_user(mine.get(), {Kind::uid, ::geteuid()}));
  const auto refused = check_server_user(mine.get(), {Kind::uid, kOther});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == EPERM);
}

TEST_CASE("a server of another user is refused before anything is said to it") {
  if (!is_root()) return;
  OtherUser other;
  const auto memory = GuestMemory::create({{0, 64 * kMiB, 0}}, PageSize::k4);
  REQUIRE(memory);
  DeviceConfig device;
  {
    ConnectCancel cancel;
    const auto attached =
        connect_device({.config = device, .memory = *memory}, other.socket, cancel);
    REQUIRE_FALSE(attached);
    CHECK(attached.error().code == EPERM);
    CHECK(attached.error().message.starts_with("socket '" + other.socket +
                                               "': its server runs as user 12345 (process "));
    CHECK(attached.error().message.ends_with("set server_uid = 12345"));
  }
  CHECK(other.ended() == 0);
}

TEST_CASE("a server of the user that is named is accepted, one of any other is not") {
  if (!is_root()) return;
  OtherUser other;
  const auto socket = vfio_user::connect_unix(
      other.socket, std::chrono::steady_clock::now() + std::chrono::seconds(5));
  REQUIRE(socket);
  CHECK(check_server_user(socket->get(), {Kind::uid, kOther}));
  CHECK(check_server_user(socket->get(), {Kind::any, 0}));
  CHECK_FALSE(check_server_user(socket->get(), {Kind::uid, 0}));
  CHECK_FALSE(check_server_user(socket->get(), {Kind::uid, kOther + 1}));
  CHECK_FALSE(check_server_user(socket->get(), {}));
}
