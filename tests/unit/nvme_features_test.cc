#include <doctest/doctest.h>

#include "tests/unit/nvme_guest.h"

namespace outboard::nvme::test {
namespace {

// A backend that says it has a volatile cache; else memory.
class CachedBackend final : public Backend {
 public:
  CachedBackend() : inner_(std::move(*MemoryBackend::create(1 << 20))) {}
  u64 size() const override { return inner_->size(); }
  const char* describe() const override { return "cached"; }
  bool volatile_cache() const override { return true; }
  u32 memory_alignment() const override { return 1; }
  u64 allocated() const override { return size(); }
  void set_block_size(u32) override {}
  void submit(BackendRequest& request) override { inner_->submit(request); }
  void kick() override {}
  void reap(std::vector<BackendRequest*>& done) override { inner_->reap(done); }
  void wait() override {}
  int poll_fd() const override { return -1; }

 private:
  std::unique_ptr<MemoryBackend> inner_;
};

Driver cached_disk() {
  Namespace ns;
  ns.backend = std::make_unique<CachedBackend>();
  return Driver(one(std::move(ns)));
}

Command set(u32 id, u32 value, u32 nsid = 0) {
  Command command = Driver::admin(AdminOpcode::set_features);
  command.nsid = nsid;
  command.dw10 = id;
  command.dw11 = value;
  command.pointer1 = kDataAt;
  return command;
}

Command get_feature(u32 id, u32 select = 0, u32 dw11 = 0, u32 nsid = 0) {
  Command command = Driver::admin(AdminOpcode::get_features);
  command.nsid = nsid;
  command.dw10 = id | select << 8;
  command.dw11 = dw11;
  command.pointer1 = kDataAt;
  return command;
}

}  // namespace

TEST_CASE("NVMe 1.4 §5.21 a feature that is set is read back; its default stays") {
  Driver guest = cached_disk();
  guest.enable();
  struct Case {
    u32 id, value, selector, back, standard;
  };
  const Case cases[] = {
      {0x01, 0x0403'0205, 0, 0x0403'0205, 6},   {0x02, 0, 0, 0, 0}, {0x04, 300, 0, 300, 343},
      {0x04, 1u << 20 | 250, 1u << 20, 250, 0}, {0x06, 0, 0, 0, 1}, {0x08, 0x0807, 0, 0x0807, 0},
      {0x09, 1u << 16 | 5, 5, 1u << 16 | 5, 5}, {0x0a, 1, 0, 1, 0}, {0x0b, 0x1f, 0, 0x1f, 0xff},
  };
  for (const Case& c : cases) {
    INFO("feature " << c.id);
    CHECK(guest.run(0, get_feature(c.id, 0, c.selector)).dw0 == c.standard);
    CHECK(guest.run(0, set(c.id, c.value)).status == Status::success);
    CHECK(guest.run(0, get_feature(c.id, 0, c.selector)).dw0 == c.back);
    CHECK(guest.run(0, get_feature(c.id, 1, c.selector)).dw0 == c.standard);
    CHECK(guest.run(0, get_feature(c.id, 2, c.selector)).dw0 == c.standard);
    CHECK(guest.run(0, get_feature(c.id, 3)).dw0 == 4);  // changeable, nothing else
  }
  guest.disable();
  guest.enable();
  for (const Case& c : cases) {
    CHECK(guest.run(0, get_feature(c.id, 0, c.selector)).dw0 == c.standard);
  }
}

TEST_CASE(
    "NVMe 1.4 §5.21.1.7 number of queues: granted at most what is offered, and only in time") {
  ControllerOptions options;
  options.io_queues = 6;
  Driver guest(one(memory_namespace(1 << 20)), options);
  guest.enable();
  CHECK(guest.run(0, set(7, 3u << 16 | 3)).dw0 == (3u << 16 | 3));
  CHECK(guest.run(0, set(7, 99u << 16 | 99)).dw0 == (5u << 16 | 5));
  CHECK(guest.run(0, set(7, 0xffff)).status == Status::invalid_field);
  CHECK(guest.run(0, set(7, 0xffffu << 16)).status == Status::invalid_field);
  REQUIRE(guest.run(0, set(7, 1u << 16 | 1)).status == Status::success);
  CHECK(guest.create_pair(3, 8) == Status::invalid_queue_identifier);
  CHECK(guest.create_pair(2, 8) == Status::success);
  CHECK(guest.run(0, set(7, 3u << 16 | 3)).status == Status::command_sequence_error);
}

TEST_CASE("NVMe 1.4 §5.21.1.5 error recovery belongs to a namespace") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.enable();
  CHECK(guest.run(0, set(5, 0x1234, 1)).status == Status::success);
  CHECK(guest.run(0, get_feature(5, 0, 0, 1)).dw0 == 0x1234);
  CHECK(guest.run(0, set(5, 7, kBroadcastNamespace)).status == Status::success);
  CHECK(guest.run(0, get_feature(5, 0, 0, 1)).dw0 == 7);
  CHECK(guest.run(0, get_feature(5, 3)).dw0 == 6);
  CHECK(guest.run(0, set(5, 1u << 16, 1)).status == Status::invalid_field);  // DULBE
  CHECK(guest.run(0, set(5, 0, 2)).status == Status::invalid_namespace);
  CHECK(guest.run(0, get_feature(5, 0, 0, 0)).status == Status::invalid_namespace);
}

TEST_CASE("NVMe 1.4 §5.21.1.6 the write cache is a feature only where one exists") {
  Driver plain(one(memory_namespace(1 << 20)));
  plain.enable();
  CHECK(plain.run(0, set(6, 0)).status == Status::invalid_field);
  CHECK(plain.run(0, get_feature(6)).status == Status::invalid_field);
  Driver guest = cached_disk();
  guest.enable();
  CHECK(guest.run(0, set(6, 0)).status == Status::success);
  Command identify = Driver::admin(AdminOpcode::identify);
  identify.dw10 = 1;
  identify.pointer1 = kDataAt;
  REQUIRE(guest.run(0, identify).status == Status::success);
  CHECK(get<u8>(guest.data(), 525) == 7);
}

TEST_CASE("NVMe 1.4 §5.21.1.14 the timestamp runs on from what the host set, also over a reset") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.enable();
  put<u64>(guest.data(), 0, 1'700'000'000'000);
  CHECK(guest.run(0, set(0xe, 0)).status == Status::success);
  for (int i = 0; i < 2; ++i) {
    CHECK(guest.run(0, get_feature(0xe)).status == Status::success);
    const u64 value = get<u64>(guest.data(), 0);
    CHECK((value & 0xffff'ffff'ffff) >= 1'700'000'000'000);
    CHECK((value & 0xffff'ffff'ffff) < 1'700'000'060'000);
    CHECK((value >> 49 & 7) == 1);  // set by the host
    guest.disable();
    guest.enable();
  }
}

TEST_CASE("NVMe 1.4 §5.21.1 bad fields of Set Features and Get Features") {
  Driver guest = cached_disk();
  guest.enable();
  CHECK(guest.run(0, set(1u << 31 | 6, 0)).status == Status::feature_not_saveable);
  CHECK(guest.run(0, set(1, 0, 1)).status == Status::feature_not_namespace_specific);
  CHECK(guest.run(0, set(2, 1)).status == Status::invalid_field);          // no such power state
  CHECK(guest.run(0, set(4, 3u << 16)).status == Status::invalid_field);   // no such sensor
  CHECK(guest.run(0, set(4, 2u << 20)).status == Status::invalid_field);   // reserved type
  CHECK(guest.run(0, set(9, 65)).status == Status::invalid_field);         // no such vector
  CHECK(guest.run(0, set(0xb, 1u << 8)).status == Status::invalid_field);  // no such notice
  CHECK(guest.run(0, get_feature(9, 0, 65)).status == Status::invalid_field);
  CHECK(guest.run(0, get_feature(4, 0, 5u << 16)).status == Status::invalid_field);
  CHECK(guest.run(0, get_feature(1, 4)).status == Status::invalid_field);  // reserved select
  for (const u32 id : {0x00u, 0x03u, 0x0cu, 0x0du, 0x0fu, 0x10u, 0x7fu, 0x80u, 0x84u, 0xffu}) {
    INFO("feature " << id);
    CHECK(guest.run(0, set(id, 0)).status == Status::invalid_field);
    CHECK(guest.run(0, get_feature(id)).status == Status::invalid_field);
  }
}

}  // namespace outboard::nvme::test
