// Which thread of outboard-nvme may do what (issue 5, item 7).
#include <array>
#include <cerrno>
#include <csignal>
#include <string>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "tests/unit/boxed_child.h"
#include "tools/nvme/file_backends.h"
#include "tools/nvme/sandbox.h"

using namespace outboard;
using namespace outboard::nvme;
using box::test::Call;

namespace {

// p(ool), s(ervice)
const Call kCalls[] = {
    {"execve", SYS_execve, {0, 0, 0, 0}, ""},
    {"openat", SYS_openat, {AT_FDCWD, reinterpret_cast<long>("/"), O_RDONLY, 0}, ""},
    {"socket", SYS_socket, {AF_UNIX, SOCK_STREAM, 0, 0}, ""},
    {"connect", SYS_connect, {-1, 0, 0, 0}, ""},
    {"mmap", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}, ""},
    {"clone", SYS_clone, {SIGCHLD, 0, 0, 0}, ""},
    {"ioctl", SYS_ioctl, {-1, static_cast<long>(BLKDISCARD), 0, 0}, ""},
    {"io_uring_setup", SYS_io_uring_setup, {0, 0, 0, 0}, ""},
    {"io_uring_register", SYS_io_uring_register, {-1, 0, 0, 0}, ""},
    {"io_uring_enter", SYS_io_uring_enter, {-1, 0, 0, 0}, "s"},
    {"accept4", SYS_accept4, {-1, 0, 0, 0}, "s"},
    {"recvmsg", SYS_recvmsg, {-1, 0, 0, 0}, "s"},
    {"unlinkat", SYS_unlinkat, {-1, reinterpret_cast<long>("a"), 0, 0}, "s"},
    {"preadv2", SYS_preadv2, {-1, 0, 0, 0}, "p"},
    {"pwritev2", SYS_pwritev2, {-1, 0, 0, 0}, "p"},
    {"fdatasync", SYS_fdatasync, {-1, 0, 0, 0}, "p"},
    {"fallocate", SYS_fallocate, {-1, 0, 0, 0}, "p"},
    {"futex", SYS_futex, {0, -1, 0, 0}, "ps"},
};

void check(ThreadKind kind, char letter) {
  box::test::check_calls(calls_of(kind), letter, kCalls);
}

}  // namespace

TEST_CASE("the service and the pool each may do what the table says, and nothing else of it") {
  check(ThreadKind::service, 's');
  check(ThreadKind::pool, 'p');
}

TEST_CASE("a ring takes only what images need: it is no way around the filter") {
  std::string path = "/tmp/outboard-ring.XXXXXX";
  const int file = ::mkstemp(path.data());
  REQUIRE(file >= 0);
  REQUIRE(::ftruncate(file, 1 << 20) == 0);
  ::close(file);
  auto image = FileImage::open(path, false, 512);
  ::unlink(path.c_str());
  REQUIRE(image);
  std::string why;
  const auto backend = make_uring_backend(*image, why);
  if (!backend) {
    MESSAGE("SKIPPED: io_uring is refused here: " << why);
    return;
  }
  // A restricted ring also refuses every register operation that is not listed, and none is.
  std::array<char, sizeof(io_uring_probe)> probe{};
  CHECK(::syscall(SYS_io_uring_register, backend->poll_fd(), IORING_REGISTER_PROBE, probe.data(),
                  0) == -1);
  CHECK(errno == EACCES);
}

TEST_CASE("the program is inside: it says how many calls it has, and knows no inherited file") {
  for (const bool sandboxed : {true, false}) {
    CAPTURE(sandboxed);
    std::array<int, 2> inherited{};
    std::array<int, 2> said{};
    std::array<int, 2> ready{};
    REQUIRE(::pipe2(inherited.data(), O_CLOEXEC) == 0);
    REQUIRE(::pipe2(said.data(), O_CLOEXEC) == 0);
    REQUIRE(::pipe2(ready.data(), O_CLOEXEC) == 0);
    const std::string socket = "/tmp/outboard-nvme-box." + std::to_string(::getpid());
    const std::string ready_fd = std::to_string(ready[1]);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::dup2(said[1], STDERR_FILENO);
      ::fcntl(inherited[1], F_SETFD, 0);
      ::fcntl(ready[1], F_SETFD, 0);
      ::execl(OUTBOARD_NVME_PROGRAM, "outboard-nvme", "--socket", socket.c_str(), "--memory", "1M",
              "--stats", "--ready-fd", ready_fd.c_str(), "--sandbox", sandboxed ? "on" : "off",
              nullptr);
      ::_exit(127);
    }
    for (const int fd : {inherited[1], said[1], ready[1]}) ::close(fd);
    char byte = 0;
    CHECK(::read(ready[0], &byte, 1) == 1);  // a descriptor that an option names is not closed
    pollfd gone{inherited[0], POLLIN, 0};
    CHECK((::poll(&gone, 1, 0) == 1) == sandboxed);
    ::kill(child, SIGTERM);
    std::string text;
    std::array<char, 4096> bytes;
    for (ssize_t got; (got = ::read(said[0], bytes.data(), bytes.size())) > 0;) {
      text.append(bytes.data(), static_cast<std::size_t>(got));
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK_MESSAGE(status == 0, text);
    CHECK_MESSAGE((text.find("\"sandbox\": {\"service\": ") != std::string::npos) == sandboxed,
                  text);
    CHECK(::access(socket.c_str(), F_OK) != 0);
    for (const int fd : {inherited[0], said[0], ready[0]}) ::close(fd);
  }
}
