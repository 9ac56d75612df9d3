#include <string>

#include <doctest/doctest.h>

#include "vfio_user/capabilities.h"

namespace outboard::vfio_user {
namespace {

std::string with(const std::string& keys) {
  return R"({"capabilities":{)" + keys + "}}";
}

TEST_CASE("C6 absent JSON and absent keys mean the protocol's defaults") {
  for (const std::string json : {"", "{}", R"({"capabilities":{}})"}) {
    const auto parsed = parse_capabilities(json);
    REQUIRE(parsed);
    CHECK(parsed->max_msg_fds == 1);
    CHECK(parsed->max_data_xfer_size == 1024 * 1024);
    CHECK(parsed->max_dma_maps == 65535);
    CHECK(parsed->pgsizes == 4096);
    CHECK(!parsed->write_multiple);
    CHECK(!parsed->twin_socket);
    CHECK(!parsed->migration);
  }
}

TEST_CASE("What one side writes, the other reads") {
  Capabilities ours;
  ours.max_msg_fds = 16;
  ours.max_data_xfer_size = 2 * 1024 * 1024;
  ours.max_dma_maps = 64;
  ours.pgsizes = 4096 | 2 * 1024 * 1024;
  ours.write_multiple = true;
  ours.twin_socket = true;
  ours.twin_socket_fd_index = 0;
  const auto read = parse_capabilities(to_json(ours, Role::server));
  REQUIRE(read);
  CHECK(read->max_msg_fds == 16);
  CHECK(read->max_data_xfer_size == 2 * 1024 * 1024);
  CHECK(read->max_dma_maps == 64);
  CHECK(read->pgsizes == ours.pgsizes);
  CHECK(read->write_multiple);
  CHECK(read->twin_socket);
  CHECK(read->twin_socket_fd_index == 0u);
  CHECK(parse_capabilities(to_json(ours, Role::client))->twin_socket_fd_index == std::nullopt);
}

TEST_CASE("the key resume: a server's, with 32 hexadecimal digits") {
  const std::string id = "0123456789abcdef0123456789ABCDEF";
  const auto given = parse_capabilities(with(R"("resume":{"id":")" + id + R"(","resumed":true})"));
  REQUIRE(given);
  CHECK(given->resume == ResumeCapability{id, true});
  CHECK(parse_capabilities(to_json(*given, Role::server))->resume == given->resume);
  CHECK_FALSE(parse_capabilities(to_json(*given, Role::client))->resume);
  CHECK_FALSE(parse_capabilities(with(R"("resume":{})"))->resume);
  CHECK_FALSE(parse_capabilities(with(R"("resume":{"id":"0123","resumed":true})")));
  CHECK_FALSE(parse_capabilities(with(R"("resume":{"id":")" + id.substr(1) + R"(g"})")));
  CHECK_FALSE(parse_capabilities(with(R"("resume":{"id":")" + id + R"(","resumed":1})")));
}

TEST_CASE("the key resume: a client asks with it, and a server's reply never does") {
  Capabilities ours;
  CHECK(to_json(ours, Role::client).find("resume") == std::string::npos);
  ours.resume_supported = true;
  CHECK(parse_capabilities(to_json(ours, Role::client))->resume_supported);
  CHECK(to_json(ours, Role::server).find("resume") == std::string::npos);
  CHECK_FALSE(parse_capabilities(with(R"("resume":{})"))->resume_supported);
  CHECK_FALSE(parse_capabilities(with(R"("resume":{"supported":false})"))->resume_supported);
  CHECK_FALSE(parse_capabilities(with(R"("resume":{"supported":1})")));
  CHECK_FALSE(parse_capabilities(with(R"("resume":true)")));
}

TEST_CASE("A server's VERSION reply fits the 200 bytes of QEMU's request (1.4)") {
  Capabilities ours;
  ours.max_msg_fds = 253;
  ours.max_data_xfer_size = 64 * 1024 * 1024;
  ours.max_dma_maps = 1'000'000;
  ours.write_multiple = true;
  ours.twin_socket = true;
  ours.twin_socket_fd_index = 0;
  CHECK(16 + 4 + to_json(ours, Role::server).size() + 1 <= 200);
}

TEST_CASE("Our VERSION never has the key migration: libvfio-user checks its page size (1.3)") {
  Capabilities ours;
  ours.migration = MigrationCapability{};
  CHECK(to_json(ours, Role::client).find("migration") == std::string::npos);
  CHECK(to_json(ours, Role::server).find("migration") == std::string::npos);
}

TEST_CASE("The key migration of a peer is read and does no harm (1.3)") {
  const auto parsed =
      parse_capabilities(with(R"("migration":{"pgsize":65536,"max_bitmap_size":1,"x":[]})"));
  REQUIRE(parsed);
  CHECK(parsed->migration->pgsize == 65536);
  CHECK(!parse_capabilities(with(R"("migration":7)")));
  CHECK(!parse_capabilities(with(R"("migration":{"pgsize":"4096"})")));
  CHECK(!parse_capabilities(with(R"("migration":{"pgsize":0})")));
}

TEST_CASE("C11 unknown keys are ignored, also a misspelt one") {
  const auto parsed = parse_capabilities(
      R"({"other":{"max_msg_fds":3},"capabilities":{"max_msg_fd":9,"x":null,"y":{"z":[1,2]}}})");
  REQUIRE(parsed);
  CHECK(parsed->max_msg_fds == 1);
}

TEST_CASE("C9 wrong JSON types are refused, and the error names the key") {
  for (const std::string key : {"max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes"}) {
    for (const std::string value :
         {"\"8\"", "-1", "8.0", "1e300", "null", "[8]", "{}", "true", "99999999999999999999999"}) {
      CAPTURE(key);
      CAPTURE(value);
      const auto parsed = parse_capabilities(with("\"" + key + "\":" + value));
      REQUIRE(!parsed);
      CHECK(parsed.error().kind == Error::Kind::protocol);
      CHECK(parsed.error().code == EINVAL);
      CHECK(parsed.error().message.find("'" + key + "'") != std::string::npos);
    }
  }
  CHECK(!parse_capabilities(with(R"("write_multiple":1)")));
  CHECK(!parse_capabilities(with(R"("twin_socket":true)")));
  CHECK(!parse_capabilities(with(R"("twin_socket":{"supported":"yes"})")));
  CHECK(!parse_capabilities(with(R"("twin_socket":{"supported":true,"fd_index":-1})")));
  CHECK(!parse_capabilities(R"({"capabilities":[]})"));
  CHECK(!parse_capabilities("[]"));
  CHECK(!parse_capabilities("7"));
}

TEST_CASE("C10 a transfer size or page size of 0 is refused, a huge figure is clamped") {
  CHECK(!parse_capabilities(with(R"("max_data_xfer_size":0)")));
  CHECK(!parse_capabilities(with(R"("pgsizes":0)")));
  CHECK(parse_capabilities(with(R"("max_msg_fds":0)"))->max_msg_fds == 0);
  CHECK(parse_capabilities(with(R"("max_msg_fds":4294967297)"))->max_msg_fds == UINT32_MAX);
  CHECK(
      parse_capabilities(with(R"("max_data_xfer_size":9223372036854775808)"))->max_data_xfer_size ==
      std::uint64_t{1} << 63);
}

TEST_CASE("C8 invalid UTF-8, deep nesting, long and broken text are refused") {
  CHECK(!parse_capabilities("{\"capabilities\":{\"x\":\"\xff\xfe\"}}"));
  CHECK(!parse_capabilities(std::string(10'000, '[')));
  CHECK(!parse_capabilities(std::string(10'000, '[') + std::string(10'000, ']')));
  CHECK(!parse_capabilities("{\"x\":\"" + std::string(1024 * 1024, 'x') + "\"}"));
  CHECK(!parse_capabilities("{"));
  CHECK(!parse_capabilities("{} {}"));
  CHECK(!parse_capabilities("\"\\"));
  CHECK(parse_capabilities("{\"x\":\"" + std::string(100, '[') + "\"}"));  // not nesting
}

}  // namespace
}  // namespace outboard::vfio_user
