#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vfio_user/transport.h"
#include "vmm/console.h"
#include "vmm/event_loop.h"

namespace outboard::vmm {
namespace {

using vfio_user::UniqueFd;

class Folder {
 public:
  Folder() { REQUIRE(::mkdtemp(path_.data()) != nullptr); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { static_cast<void>(std::system(("rm -rf " + path_).c_str())); }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_ = "/tmp/console-test-XXXXXX";
};

std::span<const std::byte> bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string contents(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

// The UART's side of a console: takes what it is given, `room` bytes at a time.
struct Guest {
  std::string typed;
  std::size_t room = 1 << 20;
  int output_ready = 0;
  std::vector<ConsoleCommand> commands;

  void start(ConsoleBackend& console, EventLoop& loop) {
    console.start(
        loop,
        [this](std::span<const std::byte> offered) {
          const std::size_t take = std::min(room, offered.size());
          typed.append(reinterpret_cast<const char*>(offered.data()), take);
          room -= take;
          return take;
        },
        [this] { ++output_ready; },
        [this](ConsoleCommand command) { commands.push_back(command); });
  }
};

template <class Done>
void run_until(EventLoop& loop, Done done) {
  for (int turns = 0; turns < 10000 && !done(); ++turns)
    loop.run_once(std::chrono::milliseconds(100));
  REQUIRE(done());
}

}  // namespace

TEST_CASE("a file console keeps what fits its limit and goes on") {
  const Folder folder;
  auto console = ConsoleBackend::open({ConsoleType::file, folder / "log", 10});
  REQUIRE(console);
  CHECK((*console)->write(bytes("12345678")) == 8);
  CHECK((*console)->write(bytes("abcdefgh")) == 8);  // the guest is never held up by a full file
  CHECK(contents(folder / "log") == "12345678ab");
}

TEST_CASE("a file console that cannot be made is one clear line") {
  const auto console = ConsoleBackend::open({ConsoleType::file, "/nonexistent/log", 10});
  REQUIRE_FALSE(console);
  CHECK(console.error().message.starts_with("console file /nonexistent/log: No such file"));
}

TEST_CASE("a socket console serves one reader at a time, both directions, and survives hang-ups") {
  const Folder folder;
  auto loop = EventLoop::create();
  REQUIRE(loop);
  auto console = ConsoleBackend::open({ConsoleType::socket, folder / "tty", 0});
  REQUIRE(console);
  Guest guest;
  guest.start(**console, **loop);
  CHECK((*console)->write(bytes("nobody listens")) == 14);
  for (int round = 0; round < 3; ++round) {
    auto reader = vfio_user::connect_unix(
        folder / "tty", std::chrono::steady_clock::now() + std::chrono::seconds(5));
    REQUIRE(reader);
    const std::string key = std::to_string(round);
    REQUIRE(::write(reader->get(), key.data(), 1) == 1);
    run_until(**loop, [&] { return guest.typed.ends_with(key); });
    CHECK((*console)->write(bytes("hello")) == 5);
    std::array<char, 5> got{};
    CHECK(::recv(reader->get(), got.data(), got.size(), MSG_WAITALL) == 5);
    CHECK(std::string(got.data(), got.size()) == "hello");
    const int before = guest.output_ready;
    reader->reset();
    run_until(**loop, [&] { return guest.output_ready > before; });
  }
  (*console)->stop();
  console->reset();
  struct stat gone {};
  CHECK(::stat((folder / "tty").c_str(), &gone) == -1);
}

TEST_CASE("input that the UART has no room for is kept, in order, and offered again") {
  const Folder folder;
  auto loop = EventLoop::create();
  REQUIRE(loop);
  auto console = ConsoleBackend::open({ConsoleType::socket, folder / "tty", 0});
  REQUIRE(console);
  Guest guest;
  guest.room = 0;
  guest.start(**console, **loop);
  auto reader = vfio_user::connect_unix(folder / "tty",
                                        std::chrono::steady_clock::now() + std::chrono::seconds(5));
  REQUIRE(reader);
  std::string sent;
  for (int i = 0; i < 20000; ++i) sent.push_back(static_cast<char>('a' + i % 26));
  std::size_t written = 0;
  while (guest.typed.size() < sent.size()) {
    if (written < sent.size()) {
      const ssize_t n = ::send(reader->get(), sent.data() + written, sent.size() - written,
                               MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) written += static_cast<std::size_t>(n);
    }
    guest.room = 16;  // as many as a 16550A's FIFO
    (*console)->input_ready();
    (*loop)->run_once(std::chrono::milliseconds(0));
  }
  CHECK(guest.typed == sent);
  (*console)->stop();
}

TEST_CASE("output to a slow reader is held back and told when there is room") {
  const Folder folder;
  auto loop = EventLoop::create();
  REQUIRE(loop);
  auto console = ConsoleBackend::open({ConsoleType::socket, folder / "tty", 0});
  REQUIRE(console);
  Guest guest;
  guest.start(**console, **loop);
  auto reader = vfio_user::connect_unix(folder / "tty",
                                        std::chrono::steady_clock::now() + std::chrono::seconds(5));
  REQUIRE(reader);
  REQUIRE(::write(reader->get(), "x", 1) == 1);
  run_until(**loop, [&] { return guest.typed == "x"; });
  const std::string block(4096, 'z');
  std::size_t taken = 0;
  std::size_t last = block.size();
  while (last == block.size()) taken += last = (*console)->write(bytes(block));
  CHECK(last < block.size());
  CHECK(guest.output_ready == 0);
  std::size_t got = 0;
  std::array<char, 65536> buffer;
  while (got < taken) {
    const ssize_t n = ::recv(reader->get(), buffer.data(), buffer.size(), 0);
    REQUIRE(n > 0);
    got += static_cast<std::size_t>(n);
  }
  CHECK(got == taken);
  run_until(**loop, [&] { return guest.output_ready == 1; });
  (*console)->stop();
}

TEST_CASE("a pty console carries both directions and removes its link") {
  const Folder folder;
  auto loop = EventLoop::create();
  REQUIRE(loop);
  auto console = ConsoleBackend::open({ConsoleType::pty, folder / "link", 0});
  REQUIRE(console);
  Guest guest;
  guest.start(**console, **loop);
  const UniqueFd terminal(::open((folder / "link").c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(terminal);
  REQUIRE(::write(terminal.get(), "ls\r", 3) == 3);
  run_until(**loop, [&] { return guest.typed == "ls\r"; });
  CHECK((*console)->write(bytes("out")) == 3);
  std::array<char, 3> got{};
  CHECK(::read(terminal.get(), got.data(), got.size()) == 3);
  CHECK(std::string(got.data(), 3) == "out");
  (*console)->stop();
  console->reset();
  struct stat gone {};
  CHECK(::lstat((folder / "link").c_str(), &gone) == -1);
}

}  // namespace outboard::vmm
