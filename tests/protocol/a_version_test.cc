// CONFORMANCE A: connecting and VERSION.
#include <cstring>
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"
#include "vfio_user/socket_transport.h"
#include "vfio_user/transport.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;
using Clock = std::chrono::steady_clock;

std::filesystem::path scratch_directory() {
  std::string name = (std::filesystem::temp_directory_path() / "outboard-protocol-XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  return name;
}

// The outcome of a handshake whose VERSION reply is the given payload.
struct Handshake {
  explicit Handshake(Bytes payload, std::vector<int> fds = {},
                     ClientOptions options = quick_options())
      : server([&] {
          Script script;
          script.on[Command::version] = [payload = std::move(payload), fds](Peer& peer,
                                                                            Incoming& m) {
            peer.reply(m.header, payload, fds);
          };
          return script;
        }()),
        client(server.connect(std::move(options))) {}

  ScriptedServer server;
  Result<std::unique_ptr<Client>> client;
};

Bytes version(const std::string& json, std::uint16_t minor = 2, std::uint16_t major = 0) {
  return bytes_of(wire::Version{major, minor}) + text_bytes(json);
}

Bytes capabilities(const std::string& inside) {
  return version(R"({"capabilities":{)" + inside + "}}");
}

TEST_CASE(
    "C1 a socket path that is missing, a file, without a listener or too long is a clear error") {
  const Steady steady;
  const auto directory = scratch_directory();
  const std::string missing = directory / "missing.sock";
  auto client = Client::connect(missing, quick_options());
  REQUIRE_FALSE(client);
  CHECK(client.error().code == ENOENT);
  CHECK(client.error().message.find(missing) != std::string::npos);

  const std::string file = directory / "file";
  UniqueFd(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)).reset();
  client = Client::connect(file, quick_options());
  REQUIRE_FALSE(client);
  CHECK(client.error().message.find("not a socket") != std::string::npos);

  const std::string dead = directory / "dead.sock";
  {
    auto listening = vfio_user::listen_unix(dead, 1);
    REQUIRE(listening);
  }
  client = Client::connect(dead, quick_options());
  REQUIRE_FALSE(client);
  CHECK(client.error().code == ECONNREFUSED);

  const std::string too_long = directory / std::string(120, 'x');
  client = Client::connect(too_long, quick_options());
  REQUIRE_FALSE(client);
  CHECK(client.error().code == ENAMETOOLONG);
  CHECK(client.error().message.find("107") != std::string::npos);
  std::filesystem::remove_all(directory);
}

TEST_CASE("C2 a server that never answers VERSION fails within the deadline") {
  const Steady steady;
  Script script;
  script.on[Command::version] = [](Peer&, Incoming&) {};
  ScriptedServer server(script);
  const auto begin = Clock::now();
  const auto client = server.connect(quick_options(100ms));
  REQUIRE_FALSE(client);
  CHECK(client.error().kind == Kind::timeout);
  CHECK(client.error().message.find("dut: VERSION") != std::string::npos);
  CHECK(Clock::now() - begin >= 100ms);
  CHECK(Clock::now() - begin < 5s);
}

TEST_CASE(
    "C3 a second client of a busy server connects, hears nothing and fails within the deadline") {
  const Steady steady;
  const auto directory = scratch_directory();
  const std::string path = directory / "busy.sock";
  {
    auto listening = vfio_user::listen_unix(path, 0);  // nobody ever accepts
    REQUIRE(listening);
    for (int i = 0; i < 3; ++i) {
      const auto begin = Clock::now();
      const auto client = Client::connect(path, quick_options(100ms));
      REQUIRE_FALSE(client);
      CHECK(client.error().kind == Kind::timeout);
      CHECK(Clock::now() - begin < 5s);
    }
  }
  std::filesystem::remove_all(directory);
}

TEST_CASE("C4 a server that closes before, in the middle of or after VERSION is an error at once") {
  const Steady steady;
  for (const std::size_t read_first :
       {std::size_t{0}, std::size_t{8}, std::size_t{16}, std::size_t{0xffff}}) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    UniqueFd other(ends[1]);
    auto transport = vfio_user::SocketTransport::adopt(UniqueFd(ends[0]));
    REQUIRE(transport);
    if (read_first == 0) other.reset();
    std::thread closer([&] {
      if (read_first == 0) return;
      Bytes buffer(read_first);
      const ssize_t got = ::recv(other.get(), buffer.data(), buffer.size(), 0);
      CHECK(got > 0);
      other.reset();
    });
    const auto begin = Clock::now();
    const auto client = Client::adopt(std::move(*transport), quick_options(10s));
    closer.join();
    REQUIRE_FALSE(client);
    CHECK(client.error().kind == Kind::closed);
    CHECK(Clock::now() - begin < 5s);
  }
}

TEST_CASE("C5 another major version or a minor one above ours is refused") {
  const Steady steady;
  for (const auto& [major, minor] : {std::pair{1, 0}, {1, 2}, {0, 3}, {0, 77}, {0xffff, 0xffff}}) {
    const Handshake shake(
        version("{}", static_cast<std::uint16_t>(minor), static_cast<std::uint16_t>(major)));
    REQUIRE_FALSE(shake.client);
    CHECK(shake.client.error().kind == Kind::protocol);
    CHECK(shake.client.error().message.find("version") != std::string::npos);
  }
  for (const int minor : {0, 1, 2}) {
    CHECK(Handshake(version("{}", static_cast<std::uint16_t>(minor))).client.has_value());
  }
}

TEST_CASE("C6 a reply without JSON means the defaults of the protocol") {
  const Steady steady;
  const Handshake shake(bytes_of(wire::Version{0, 1}));
  REQUIRE(shake.client);
  const auto& server = (*shake.client)->server();
  CHECK(server.max_msg_fds == 1);
  CHECK(server.max_data_xfer_size == 1024 * 1024);
  CHECK(server.max_dma_maps == 65535);
  CHECK(server.pgsizes == 4096);
  CHECK_FALSE(server.write_multiple);
  CHECK_FALSE(server.twin_socket);
}

TEST_CASE("C7 a reply of 0 to 3 bytes is refused") {
  const Steady steady;
  for (std::size_t size = 0; size < 4; ++size) {
    const Handshake shake{Bytes(size)};
    REQUIRE_FALSE(shake.client);
    CHECK(shake.client.error().kind == Kind::protocol);
  }
}

TEST_CASE(
    "C8 JSON without a NUL, cut by one, not UTF-8, nested 10000 deep or 1 MiB long never crashes") {
  const Steady steady;
  const Bytes head = bytes_of(wire::Version{0, 2});
  CHECK_FALSE(Handshake(head + text_bytes("{}", false)).client);
  CHECK_FALSE(Handshake(head + text_bytes(std::string("{\0}", 3))).client);
  CHECK_FALSE(Handshake(head + text_bytes("{\"capabilities\":{\"\xff\xfe\":1}}")).client);
  CHECK_FALSE(
      Handshake(head + text_bytes(std::string(10000, '[') + std::string(10000, ']'))).client);
  CHECK_FALSE(Handshake(head + text_bytes("{\"a\":\"" + std::string(1 << 20, 'x') + "\"}")).client);
  CHECK_FALSE(Handshake(version("{")).client);
  CHECK_FALSE(Handshake(version("[]")).client);
}

TEST_CASE("C9 a capability of the wrong JSON type is refused") {
  const Steady steady;
  for (const std::string key : {"max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes"}) {
    for (const std::string value : {"\"8\"", "-1", "1.5", "1e300", "[]", "{}", "true", "null"}) {
      CAPTURE(key);
      CAPTURE(value);
      CHECK_FALSE(Handshake(capabilities("\"" + key + "\":" + value)).client);
    }
  }
  for (const std::string value : {"1", "\"true\"", "[]"}) {
    CHECK_FALSE(Handshake(capabilities("\"write_multiple\":" + value)).client);
    CHECK_FALSE(Handshake(capabilities("\"twin_socket\":" + value)).client);
  }
}

TEST_CASE("C10 limits of 0, 1 and 2^63 end neither in an endless loop nor in a division by zero") {
  const Steady steady;
  for (const std::string value : {"0", "1", "9223372036854775808"}) {
    CAPTURE(value);
    Script script;
    script.capabilities = "\"max_data_xfer_size\":" + value;
    ScriptedServer server(script);
    auto client = server.connect(quick_options());
    if (!client) {
      CHECK(value == "0");
      continue;
    }
    auto device = (*client)->attach({});
    REQUIRE(device);
    CHECK(device->config.size() == 256);
    Bytes data(16);
    CHECK((*client)->region_read(0, 0, data).value_or(0) == 16);
    CHECK((*client)->region_write(0, 0, data));
    const auto reg = (*client)->region_read(0, 0, std::span(data).first(4));
    if (value == "1") {
      REQUIRE_FALSE(reg);  // a register is never split
      CHECK(reg.error().kind == Kind::limit);
    } else {
      CHECK(reg.value_or(0) == 4);
    }
  }
  Script script;
  script.capabilities = "\"max_msg_fds\":0";
  ScriptedServer server(script);
  auto client = server.connect(quick_options());
  if (client) {
    REQUIRE((*client)->attach({}));
    const int one[] = {STDERR_FILENO};
    const auto armed = (*client)->arm_irqs(wire::kIrqMsix, 0, one);
    REQUIRE_FALSE(armed);
    CHECK(armed.error().kind == Kind::limit);
    const int none[] = {-1, -1};
    CHECK((*client)->arm_irqs(wire::kIrqMsix, 0, none));
    const UniqueFd file = memory_file(4096);
    CHECK_FALSE((*client)->dma_map({0, 4096, file.get(), 0, true, true, {}}));
  }
}

TEST_CASE("C11 unknown capabilities, a misspelt one among them, are ignored") {
  const Steady steady;
  const Handshake shake(capabilities(
      R"("max_fds":3,"max_msg_fd":4,"future":{"a":[1,2]},"max_dma_maps":7,"sparse_mmap_fds":true)"));
  REQUIRE(shake.client);
  CHECK((*shake.client)->server().max_msg_fds == 1);
  CHECK((*shake.client)->server().max_dma_maps == 7);
}

TEST_CASE(
    "C12 a granted twin socket that is missing, misnumbered or no socket ends the connection") {
  const Steady steady;
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  const UniqueFd near(pair[0]);
  const UniqueFd far(pair[1]);
  const UniqueFd file = memory_file(4096);
  const UniqueFd datagram(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto grant = [](const std::string& index) {
    return capabilities(R"("twin_socket":{"supported":true)" + index + "}");
  };
  CHECK_FALSE(Handshake(grant("")).client);
  CHECK_FALSE(Handshake(grant(""), {near.get()}).client);
  CHECK_FALSE(Handshake(grant(R"(,"fd_index":0)")).client);
  CHECK_FALSE(Handshake(grant(R"(,"fd_index":1)"), {near.get()}).client);
  CHECK_FALSE(Handshake(grant(R"(,"fd_index":-1)"), {near.get()}).client);
  CHECK_FALSE(Handshake(grant(R"(,"fd_index":4294967295)"), {near.get()}).client);
  CHECK_FALSE(Handshake(grant(R"(,"fd_index":0)"), {file.get()}).client);
  CHECK_FALSE(Handshake(grant(R"(,"fd_index":0)"), {datagram.get()}).client);
  const Handshake good(grant(R"(,"fd_index":1)"), {file.get(), near.get()});
  REQUIRE(good.client);
  CHECK((*good.client)->server().twin_socket);
}

TEST_CASE("C13 a twin socket that nobody asked for is closed and stays off") {
  const Steady steady;
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  UniqueFd near(pair[0]);
  const UniqueFd far(pair[1]);
  ClientOptions options = quick_options();
  options.offer_twin_socket = false;
  const Handshake shake(capabilities(R"("twin_socket":{"supported":true,"fd_index":0})"),
                        {near.get()}, options);
  REQUIRE(shake.client);
  CHECK_FALSE((*shake.client)->server().twin_socket);
  const auto asked = shake.server.log_of(Command::version);
  REQUIRE(asked.size() == 1);
  const std::string json(reinterpret_cast<const char*>(asked[0].payload.data()),
                         asked[0].payload.size());
  CHECK(json.find("twin_socket") == std::string::npos);
}

TEST_CASE("C14 other descriptors with the VERSION reply are closed") {
  const Steady steady;
  const UniqueFd file = memory_file(4096);
  const std::vector<int> many(20, file.get());
  const Handshake shake(version("{}"), many);
  REQUIRE(shake.client);
  CHECK((*shake.client)->alive());
}

TEST_CASE(
    "C15 a VERSION reply of another id, command or type, or an error without an errno, is "
    "refused") {
  const Steady steady;
  const auto outcome = [](auto change) {
    Script script;
    script.on[Command::version] = [change](Peer& peer, Incoming& m) {
      wire::Header header{m.header.id, m.header.command, 20, wire::kTypeReply, 0};
      change(header);
      peer.send(bytes_of(header) + bytes_of(wire::Version{0, 2}));
    };
    ScriptedServer server(script);
    return server.connect(quick_options(100ms));
  };
  CHECK(outcome([](wire::Header&) {}).has_value());
  CHECK_FALSE(outcome([](wire::Header& h) { h.id = static_cast<std::uint16_t>(h.id + 1); }));
  CHECK_FALSE(outcome([](wire::Header& h) { h.command = 4; }));
  CHECK_FALSE(outcome([](wire::Header& h) { h.flags = wire::kTypeCommand; }));
  const auto error = outcome([](wire::Header& h) { h.flags |= wire::kError; });
  REQUIRE_FALSE(error);
  CHECK(error.error().kind == Kind::server);
  CHECK(error.error().code == EIO);
}

TEST_CASE(
    "VERSION is one message of the protocol's own shape: 0.2, JSON with its NUL, no descriptors") {
  const Steady steady;
  ScriptedServer server{Script()};
  REQUIRE(server.connect(quick_options()));
  const auto sent = server.log_of(Command::version);
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].as<wire::Version>().major == 0);
  CHECK(sent[0].as<wire::Version>().minor == 2);
  CHECK(sent[0].payload.back() == std::byte{0});
  CHECK(sent[0].fds == 0);
  const std::string json(reinterpret_cast<const char*>(sent[0].payload.data()) + 4);
  CHECK(json.find("\"twin_socket\":{\"supported\":true}") != std::string::npos);
  CHECK(json.size() + 1 + 4 == sent[0].payload.size());
}

}  // namespace
}  // namespace outboard::protocol_test
