// Descriptors that a process is started with: how they are named, and sockets in open directories
// (issue 5, item 7).
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfio_user/given_fds.h"

using namespace outboard::vfio_user;
namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "given-fds.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

std::string why(const Result<GivenFd>& result) {
  return result ? "(found)" : result.error().message;
}

bool closes_on_exec(int fd) {
  return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

}  // namespace

TEST_CASE("fd:N and fd:N/file are descriptors, everything else is a path") {
  CHECK(is_given_fd("fd:5"));
  CHECK_FALSE(is_given_fd("/run/fd:5"));
  CHECK_FALSE(is_given_fd("fd"));
  REQUIRE(parse_given_fd("fd:5/a/b.sock"));
  CHECK(parse_given_fd("fd:5/a/b.sock")->file == "a/b.sock");
  CHECK(parse_given_fd("fd:12")->text() == "fd:12");
  for (const char* other : {"fd:", "fd:2", "fd:-1", "fd:x", "fd:5x", "fd:99999999999", "5", ""})
    CHECK_MESSAGE(!parse_given_fd(other), other);
}

TEST_CASE("a name has to be one that was passed, once; the first is descriptor 3") {
  const GivenFds passed({"kvm", "disk", "twice", "twice"});
  CHECK(passed.find("fd:kvm")->fd == 3);
  CHECK(passed.find("fd:disk/a.sock")->text() == "fd:4/a.sock");
  CHECK(passed.find("fd:77")->fd == 77);
  CHECK(
      why(passed.find("fd:disc")) ==
      "'fd:disc': no descriptor of that name was passed (LISTEN_FDNAMES); those passed: kvm, disk, "
      "twice, twice");
  CHECK(why(GivenFds().find("fd:kvm")).ends_with("(LISTEN_FDNAMES); none was"));
  CHECK(why(passed.find("fd:twice")).find("several descriptors") != std::string::npos);
  CHECK(why(passed.find("fd:1")).find("standard streams") != std::string::npos);
  CHECK(why(passed.find("fd:disk/")).find("name of a file must follow") != std::string::npos);
}

TEST_CASE("sd_listen_fds(3): for this process only, gone from the environment, closed on exec") {
  const auto set = [](const std::string& pid, const char* count, const char* names) {
    ::setenv("LISTEN_PID", pid.c_str(), 1);
    ::setenv("LISTEN_FDS", count, 1);
    names == nullptr ? ::unsetenv("LISTEN_FDNAMES") : ::setenv("LISTEN_FDNAMES", names, 1);
  };
  const std::string self = std::to_string(::getpid());
  set(self, "2", "kvm:disk0");
  CHECK(GivenFds::from_environment().find("fd:disk0")->fd == 4);
  CHECK(std::getenv("LISTEN_PID") == nullptr);
  CHECK(std::getenv("LISTEN_FDS") == nullptr);
  CHECK(std::getenv("LISTEN_FDNAMES") == nullptr);
  set(self, "1", nullptr);
  CHECK(GivenFds::from_environment().find("fd:unknown")->fd == 3);
  set(self, "2", "kvm:");
  CHECK(GivenFds::from_environment().find("fd:kvm")->fd == 3);
  set(std::to_string(::getppid()), "2", "kvm:disk0");
  CHECK_FALSE(GivenFds::from_environment().find("fd:kvm"));
  for (const char* count : {"", "-1", "x", "1000000000"}) {
    set(self, count, "kvm");
    CHECK_FALSE(GivenFds::from_environment().find("fd:kvm"));
  }
  const UniqueFd open(::fcntl(::open("/dev/null", O_RDWR | O_CLOEXEC), F_DUPFD, 100));
  REQUIRE_FALSE(closes_on_exec(open.get()));
  CHECK(GivenFds().find("fd:" + std::to_string(open.get())));
  CHECK(closes_on_exec(open.get()));
}

TEST_CASE("a descriptor that is not open cannot be taken over") {
  const auto taken = take_given_fd(987);
  REQUIRE_FALSE(taken);
  CHECK(taken.error().code == EBADF);
  CHECK(taken.error().message == "fd:987 is not open: whoever starts this program must pass it");
}

TEST_CASE("a socket in an open directory is reached without its path, however long that is") {
  Folder folder;
  const fs::path deep = folder.path / std::string(90, 'd') / std::string(90, 'e');
  fs::create_directories(deep);
  const UniqueFd directory(::open(deep.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const fs::path before = fs::current_path();
  std::thread([&] {
    // Bound there the same way.
    REQUIRE(::unshare(CLONE_FS) == 0);
    REQUIRE(::fchdir(directory.get()) == 0);
    const auto listener = listen_unix("device.sock", 1);
    REQUIRE(listener);
    REQUIRE(::chdir("/") == 0);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    CHECK(connect_unix_at(directory.get(), "device.sock", deadline));
    CHECK(fs::current_path() == "/");
    const auto missing = connect_unix_at(directory.get(), "other.sock", deadline);
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == ENOENT);
    CHECK(connect_unix_at(987, "device.sock", deadline).error().code == EBADF);
    const UniqueFd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const auto no_folder = connect_unix_at(file.get(), "device.sock", deadline);
    CHECK(no_folder.error().code == ENOTDIR);
    CHECK(no_folder.error().message.find("is no directory") != std::string::npos);
  }).join();
  CHECK(fs::current_path() == before);
}
