#include <chrono>
#include <string>

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>

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

}  // namespace outboard::vmm
