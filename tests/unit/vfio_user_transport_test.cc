#include <atomic>
#include <fstream>
#include <thread>

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "vfio_user/message_reader.h"
#include "vfio_user/socket_transport.h"
#include "vfio_user/transport.h"
#include "vfio_user_raw_client.h"

namespace outboard::vfio_user {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::Bytes;
using testing::make_memfd;
using testing::message_bytes;
using testing::open_fds;
using testing::send_bytes;

struct Pair {
  Pair() {
    auto made = SocketTransport::make_pair();
    REQUIRE(made);
    ours = std::move(made->first);
    peer = std::move(made->second);
  }
  std::unique_ptr<SocketTransport> ours;
  UniqueFd peer;
};

/// A directory of its own, removed with everything in it.
class Directory {
 public:
  Directory() {
    char name[] = "/tmp/outboard-vfio-user-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

bool says(const Error& error, const std::string& part) {
  CAPTURE(error.message);
  return error.message.find(part) != std::string::npos;
}

Deadline soon(int ms = 50) {
  return steady_clock::now() + milliseconds(ms);
}

TEST_CASE("C1 connecting names the socket, what is wrong with it, and the remedy") {
  const Directory directory;
  const auto before = open_fds();
  SUBCASE("missing") {
    const auto result = connect_unix(directory / "none", soon());
    REQUIRE(!result);
    CHECK(result.error().code == ENOENT);
    CHECK(says(result.error(), directory / "none"));
    CHECK(says(result.error(), "start the device server"));
  }
  SUBCASE("a regular file") {
    std::ofstream(directory / "file") << "x";
    const auto result = connect_unix(directory / "file", soon());
    REQUIRE(!result);
    CHECK(result.error().code == ENOTSOCK);
    CHECK(says(result.error(), "not a socket"));
  }
  SUBCASE("nobody listening") {
    { auto gone = listen_unix(directory / "gone", 1); }
    const auto result = connect_unix(directory / "gone", soon());
    REQUIRE(!result);
    CHECK(result.error().code == ECONNREFUSED);
    CHECK(says(result.error(), "nobody listens"));
  }
  SUBCASE("a path over 107 bytes") {
    const auto result = connect_unix("/" + std::string(107, 'x'), soon());
    REQUIRE(!result);
    CHECK(result.error().code == ENAMETOOLONG);
    CHECK(says(result.error(), "108 bytes"));
  }
  SUBCASE("an empty path") {
    CHECK(!connect_unix("", soon()));
  }
  CHECK(open_fds() == before);
}

TEST_CASE("A full backlog is waited for until the deadline, not for ever (2.2)") {
  const Directory directory;
  const auto listener = listen_unix(directory / "full", 0);
  REQUIRE(listener);
  std::vector<UniqueFd> waiting;
  const auto begin = steady_clock::now();
  for (int i = 0; i < 4; ++i) {
    auto connected = connect_unix(directory / "full", soon(100));
    if (connected) {
      waiting.push_back(std::move(*connected));
      continue;
    }
    CHECK(connected.error().kind == Error::Kind::timeout);
    CHECK(says(connected.error(), "another client"));
    CHECK(steady_clock::now() - begin >= milliseconds(90));
    return;
  }
  FAIL("the backlog never filled up");
}

TEST_CASE("Listening replaces a stale socket file, and nothing else") {
  const Directory directory;
  SUBCASE("stale") {
    { auto gone = listen_unix(directory / "s", 1); }
    CHECK(listen_unix(directory / "s", 1));
  }
  SUBCASE("in use") {
    const auto first = listen_unix(directory / "s", 4);
    const auto second = listen_unix(directory / "s", 1);
    REQUIRE(!second);
    CHECK(second.error().code == EADDRINUSE);
    CHECK(says(second.error(), "another server"));
    CHECK(connect_unix(directory / "s", soon()));
  }
  SUBCASE("a file") {
    std::ofstream(directory / "s") << "precious";
    const auto result = listen_unix(directory / "s", 1);
    REQUIRE(!result);
    CHECK(says(result.error(), "no socket"));
    CHECK(std::filesystem::file_size(directory / "s") == 8);
  }
  SUBCASE("no directory") {
    CHECK(says(listen_unix(directory / "no/s", 1).error(), "directory does not exist"));
  }
}

TEST_CASE("Only a connected Unix stream socket makes a transport") {
  CHECK(!SocketTransport::adopt(make_memfd(1)));
  CHECK(!SocketTransport::adopt(UniqueFd(::socket(AF_UNIX, SOCK_STREAM, 0))));
  CHECK(!SocketTransport::adopt(UniqueFd(::socket(AF_UNIX, SOCK_DGRAM, 0))));
  CHECK(!SocketTransport::adopt(UniqueFd()));
}

TEST_CASE("C34 a message of 1 MiB and its fds leave in one piece and arrive whole") {
  Pair pair;
  Bytes data(1024 * 1024);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7);
  const auto fd = make_memfd(4096);
  const int fds[] = {fd.get(), fd.get()};
  auto bytes = message_bytes(5, 10, 0, data);
  const std::array<iovec, 3> parts{iovec{bytes.data(), 16}, iovec{nullptr, 0},
                                   iovec{bytes.data() + 16, bytes.size() - 16}};
  std::thread sender([&] {
    const auto sent = pair.ours->send(parts, fds, soon(5000));
    CHECK(sent.value_or(0) == bytes.size());
  });
  const auto got = testing::receive_message(pair.peer.get());
  sender.join();
  REQUIRE(got);
  CHECK(got->fds.size() == 2);
  CHECK(got->payload == data);
}

TEST_CASE("C31 a send that the peer does not read gives up at its deadline") {
  Pair pair;
  Bytes bytes(64 * 1024 * 1024);
  const iovec part{bytes.data(), bytes.size()};
  const auto first = pair.ours->send(std::span(&part, 1), {}, soon(30));
  REQUIRE(first);
  CHECK(*first > 0);
  CHECK(*first < bytes.size());
  // Now nothing fits, so nothing is sent and no fd leaves.
  const auto fd = make_memfd(4096);
  const int raw = fd.get();
  const auto second = pair.ours->send(std::span(&part, 1), std::span(&raw, 1), kNoWait);
  REQUIRE(second);
  CHECK(*second == 0);
}

TEST_CASE("C32 signals interrupt neither sending nor receiving") {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // without SA_RESTART
  struct sigaction old {};
  ::sigaction(SIGUSR1, &action, &old);
  Pair pair;
  Bytes data(8 * 1024 * 1024, std::byte{3});
  const auto bytes = message_bytes(1, 10, 0, data);
  std::atomic<bool> done = false;
  std::thread sender([&] {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    CHECK(pair.ours->send(std::span(&part, 1), {}, soon(20'000)).value_or(0) == bytes.size());
    done = true;
  });
  const auto handle = sender.native_handle();
  std::thread storm([&] {
    while (!done) ::pthread_kill(handle, SIGUSR1);
  });
  auto reading = SocketTransport::adopt(std::move(pair.peer));
  MessageReader reader(16 * 1024 * 1024);
  std::optional<IncomingMessage> message;
  while (!message) {
    REQUIRE(wait_for((*reading)->fd(), POLLIN, soon(20'000)).value_or(false));
    auto next = reader.next(**reading);
    REQUIRE(next);
    message = std::move(*next);
  }
  storm.join();
  sender.join();
  CHECK(message->payload.size() == data.size());
  ::sigaction(SIGUSR1, &old, nullptr);
}

TEST_CASE("C4 C95 a closed peer is an error of kind closed, for both directions") {
  Pair pair;
  pair.peer.reset();
  std::array<std::byte, 16> into{};
  const auto received = pair.ours->receive(into, true);
  REQUIRE(!received);
  CHECK(received.error().kind == Error::Kind::closed);
  const iovec part{into.data(), into.size()};
  const auto sent = pair.ours->send(std::span(&part, 1), {}, kNoWait);
  REQUIRE(!sent);
  CHECK(sent.error().kind == Error::Kind::closed);
}

TEST_CASE("shutdown() wakes a thread that waits for input (C96)") {
  Pair pair;
  std::thread waiter([&] {
    CHECK(wait_for(pair.ours->fd(), POLLIN, soon(10'000)).value_or(false));
    std::array<std::byte, 1> into{};
    CHECK(!pair.ours->receive(into, false));
  });
  pair.ours->shutdown();
  waiter.join();
}

std::optional<IncomingMessage> read_one(MessageReader& reader, Transport& transport) {
  auto next = reader.next(transport);
  REQUIRE(next);
  return std::move(*next);
}

TEST_CASE("C16 a message that comes byte by byte is read whole, with the fds of its first byte") {
  Pair pair;
  MessageReader reader(4096);
  const auto bytes = message_bytes(7, 9, 1, Bytes(20, std::byte{9}));
  const auto fd = make_memfd(4096);
  const int raw = fd.get();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    CHECK(!read_one(reader, *pair.ours));
    send_bytes(pair.peer.get(), {bytes[i]}, std::span(&raw, i == 0 ? 1 : 0));
  }
  const auto message = read_one(reader, *pair.ours);
  REQUIRE(message);
  CHECK(message->header.id == 7);
  CHECK(message->is_reply());
  CHECK(message->fds.size() == 1);
  CHECK(message->payload.size() == 20);
  CHECK(!reader.in_message());
}

TEST_CASE("C17 two messages in one segment come apart") {
  Pair pair;
  MessageReader reader(4096);
  send_bytes(pair.peer.get(), testing::join(message_bytes(1, 9, 1, Bytes(3, std::byte{1})),
                                            message_bytes(2, 11, 0, Bytes(16))));
  CHECK(read_one(reader, *pair.ours)->header.id == 1);
  const auto second = read_one(reader, *pair.ours);
  CHECK(second->header.id == 2);
  CHECK(second->is_command());
  CHECK(!read_one(reader, *pair.ours));
}

TEST_CASE("C18 sizes under 16 and over the limit end the stream before anything is allocated") {
  for (const std::uint32_t size : {0u, 15u, 4097u, 0xffffffffu}) {
    CAPTURE(size);
    Pair pair;
    MessageReader reader(4096);
    send_bytes(pair.peer.get(), testing::bytes_of(wire::Header{1, 9, size, 1, 0}));
    const auto next = reader.next(*pair.ours);
    REQUIRE(!next);
    CHECK(next.error().kind == Error::Kind::protocol);
    CHECK(says(next.error(), std::to_string(size)));
  }
  Pair pair;
  MessageReader reader(4096);
  send_bytes(pair.peer.get(), message_bytes(1, 9, 1, Bytes(4080)));
  CHECK(read_one(reader, *pair.ours));
}

TEST_CASE("C19 types 2 to 15 end the stream, undefined flag bits do not") {
  for (std::uint32_t type = 0; type < 16; ++type) {
    Pair pair;
    MessageReader reader(4096);
    send_bytes(pair.peer.get(), message_bytes(1, 9, type | 0xffffff80, {}));
    CHECK(reader.next(*pair.ours).has_value() == (type < 2));
  }
}

TEST_CASE("C28 253 fds that came with the first byte all belong to the message") {
  const auto before = open_fds();
  {
    Pair pair;
    MessageReader reader(4096);
    const auto fd = make_memfd(4096);
    const std::vector<int> raw(253, fd.get());
    send_bytes(pair.peer.get(), message_bytes(1, 9, 1, {}), raw);
    CHECK(read_one(reader, *pair.ours)->fds.size() == 253);
  }
  CHECK(open_fds() == before);
}

TEST_CASE("C30 fds that come with a later byte are closed and given to nobody") {
  const auto before = open_fds();
  {
    Pair pair;
    MessageReader reader(4096);
    const auto fd = make_memfd(4096);
    const int raw = fd.get();
    const auto bytes = message_bytes(1, 9, 1, Bytes(8));
    send_bytes(pair.peer.get(), Bytes(bytes.begin(), bytes.begin() + 16));
    CHECK(!read_one(reader, *pair.ours));
    send_bytes(pair.peer.get(), Bytes(bytes.begin() + 16, bytes.end()), std::span(&raw, 1));
    CHECK(read_one(reader, *pair.ours)->fds.empty());
    CHECK(open_fds() == before + 3);
  }
  CHECK(open_fds() == before);
}

TEST_CASE("C29 fds that the kernel had to drop end the stream, and the others are closed") {
  const auto before = open_fds();
  {
    Pair pair;
    MessageReader reader(4096);
    const auto fd = make_memfd(4096);
    const std::vector<int> raw(8, fd.get());
    send_bytes(pair.peer.get(), message_bytes(1, 9, 1, {}), raw);
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit tight{open_fds() + 2, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &tight);
    const auto next = reader.next(*pair.ours);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    REQUIRE(!next);
    CHECK(next.error().kind == Error::Kind::protocol);
    CHECK(says(next.error(), "open files"));
    CHECK(open_fds() == before + 3);
  }
  CHECK(open_fds() == before);
}

TEST_CASE("C4 the end of the stream in the middle of a message is told apart") {
  Pair pair;
  MessageReader reader(4096);
  send_bytes(pair.peer.get(), testing::bytes_of(wire::Header{1, 9, 32, 1, 0}));
  pair.peer.reset();
  const auto next = reader.next(*pair.ours);
  REQUIRE(!next);
  CHECK(next.error().kind == Error::Kind::closed);
  CHECK(says(next.error(), "in the middle of a message"));
}

}  // namespace
}  // namespace outboard::vfio_user
