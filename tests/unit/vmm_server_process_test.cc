#include <chrono>
#include <string>

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "vmm/server_launcher.h"
#include "vmm/server_process.h"

namespace outboard::vmm {
namespace {

using std::chrono::milliseconds;

bool exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

}  // namespace

TEST_CASE("a started server is ready when it listens, and leaves nothing behind") {
  auto server = ServerProcess::start("d", {"socat", "UNIX-LISTEN:{socket}", "STDOUT"}, {});
  REQUIRE(server);
  const std::string path = (*server)->socket_path();
  REQUIRE((*server)->wait_until_listening(milliseconds(20000)));
  CHECK(exists(path));
  const pid_t pid = (*server)->pid();
  server->reset();
  CHECK_FALSE(exists(path));
  CHECK_FALSE(exists(path.substr(0, path.rfind('/'))));
  CHECK(::kill(pid, 0) == -1);  // reaped
}

TEST_CASE("without {socket} in its words a server gets --socket PATH appended") {
  auto server = ServerProcess::start(
      "d", {"sh", "-c", "test \"$1\" = --socket && test -n \"$2\" && exit 7", "sh"}, {});
  REQUIRE(server);
  const auto ready = (*server)->wait_until_listening(milliseconds(20000));
  REQUIRE_FALSE(ready);
  CHECK(ready.error().message.find("ended with status 7") != std::string::npos);
}

TEST_CASE("a server that cannot be run is one clear line, at once") {
  const auto server = ServerProcess::start("d", {"/nonexistent/server"}, {});
  REQUIRE_FALSE(server);
  CHECK(server.error().message.find("cannot run its server '/nonexistent/server': No such file") !=
        std::string::npos);
}

TEST_CASE("a server that never listens is given up at the deadline") {
  auto server = ServerProcess::start("d", {"sh", "-c", "exec tail -f /dev/null"}, {});
  REQUIRE(server);
  const auto ready = (*server)->wait_until_listening(milliseconds(50));
  REQUIRE_FALSE(ready);
  CHECK(ready.error().message.find("did not listen") != std::string::npos);
  CHECK(ready.error().code == ETIMEDOUT);
}

TEST_CASE("a server that ignores SIGTERM is killed after the grace time") {
  auto server = ServerProcess::start(
      "d", {"sh", "-c", "trap '' TERM; : > \"$1\"; exec tail -f /dev/null", "sh", "{socket}"}, {});
  REQUIRE(server);
  // A plain file where the socket belongs is not listed as bound: for this test it means "trapped".
  REQUIRE((*server)->wait_until_listening(milliseconds(20000)));
  const pid_t pid = (*server)->pid();
  (*server)->stop(milliseconds(50));
  CHECK(::kill(pid, 0) == -1);
}

TEST_CASE(
    "a server is started anew when it has ended, or runs and is of no use, and else left alone") {
  auto server = ServerProcess::start("d", {"socat", "UNIX-LISTEN:{socket}", "STDOUT"}, {});
  REQUIRE(server);
  const std::string path = (*server)->socket_path();
  REQUIRE((*server)->wait_until_listening(milliseconds(20000)));
  const pid_t first = (*server)->pid();
  REQUIRE((*server)->revive(false));
  CHECK((*server)->pid() == first);
  ::kill(first, SIGKILL);
  REQUIRE((*server)->revive(false));
  const pid_t second = (*server)->pid();
  CHECK(second != first);
  CHECK(::kill(first, 0) == -1);  // reaped
  REQUIRE((*server)->wait_until_listening(milliseconds(20000)));
  CHECK((*server)->socket_path() == path);
  ::kill(second, SIGSTOP);
  REQUIRE((*server)->revive(true));
  CHECK((*server)->pid() != second);
  CHECK(::kill(second, 0) == -1);
  CHECK((*server)->wait_until_listening(milliseconds(20000)));
}

TEST_CASE("a launcher starts the server and starts it again; with it both are gone") {
  auto launcher = ServerLauncher::start("d", {"socat", "UNIX-LISTEN:{socket}", "STDOUT"}, {});
  REQUIRE(launcher);
  const auto path = (*launcher)->wait_until_listening(milliseconds(20000));
  REQUIRE(path);
  CHECK(exists(*path));
  const pid_t pid = (*launcher)->pid();
  const auto again = (*launcher)->revive(true, milliseconds(20000));  // it runs: killed first
  REQUIRE(again);
  CHECK(*again == *path);
  const vfio_user::UniqueFd cancelled(::eventfd(1, EFD_CLOEXEC));
  const auto ended = (*launcher)->revive(true, milliseconds(20000), cancelled.get());
  REQUIRE_FALSE(ended);
  CHECK(ended.error().code == ECANCELED);
  CHECK((*launcher)->wait_until_listening(milliseconds(20000)));  // not the answer to that one
  launcher->reset();
  CHECK_FALSE(exists(*path));
  CHECK(::kill(pid, 0) == -1);
}

TEST_CASE("a launcher whose server cannot be run, or never listens, says so") {
  const auto none = ServerLauncher::start("d", {"/nonexistent/server"}, {});
  REQUIRE_FALSE(none);
  CHECK(none.error().message.find("cannot run its server '/nonexistent/server'") !=
        std::string::npos);
  auto deaf = ServerLauncher::start("d", {"sh", "-c", "exec tail -f /dev/null"}, {});
  REQUIRE(deaf);
  const auto ready = (*deaf)->wait_until_listening(milliseconds(50));
  REQUIRE_FALSE(ready);
  CHECK(ready.error().code == ETIMEDOUT);
}

TEST_CASE("waiting for a server ends when it is cancelled") {
  auto server = ServerProcess::start("d", {"sh", "-c", "exec tail -f /dev/null"}, {});
  REQUIRE(server);
  const vfio_user::UniqueFd cancelled(::eventfd(1, EFD_CLOEXEC));
  const auto ready = (*server)->wait_until_listening(milliseconds(60000), cancelled.get());
  REQUIRE_FALSE(ready);
  CHECK(ready.error().code == ECANCELED);
}

}  // namespace outboard::vmm
