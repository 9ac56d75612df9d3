// The one-shot probe of a function's vectors: it sees the first signal and loses none.
#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include "devices/access_marks.h"
#include "devices/completion_probe.h"
#include "tests/unit/devices_fakes.h"
#include "vfio_user/unique_fd.h"

using namespace outboard;
using namespace outboard::devices;

namespace {

struct Fixture {
  FakeMsiRouter router;
  FakeEventLoop loop;
  DeviceMarks marks;
  CompletionProbe probe{router, loop, marks};
  vfio_user::UniqueFd fds[3];

  explicit Fixture(std::uint32_t vectors = 3) {
    for (std::uint32_t i = 0; i < vectors; ++i) {
      fds[i].reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      const MsiRouter::Route route{*probe.allocate_gsi(), {0xfee00000, i}};
      REQUIRE(probe.set_routes({&route, 1}));
      REQUIRE(connect(i));
    }
  }
  Result<void> connect(std::uint32_t vector) {
    return probe.connect_vector(vector, fds[vector].get(), 24 + vector);
  }
  void signal(std::uint32_t vector) { ::eventfd_write(fds[vector].get(), 1); }
  // The vectors whose interrupts have arrived since.
  std::vector<std::uint32_t> arrived() {
    std::vector<std::uint32_t> vectors;
    for (const MsiMessage& message : router.deliver()) vectors.push_back(message.data);
    std::ranges::sort(vectors);
    return vectors;
  }
};

using Vectors = std::vector<std::uint32_t>;

}  // namespace

TEST_CASE("probe: the first signal of a vector is stamped and delivered once, later ones bypass") {
  Fixture f;
  CHECK(f.router.connected() == 0);
  f.signal(1);
  f.loop.run();
  CHECK(f.marks.at(DeviceMark::first_interrupt).has_value());
  CHECK(f.marks.at(DeviceMark::first_io_completion).has_value());
  CHECK(f.arrived() == Vectors{1});
  CHECK(f.arrived().empty());
  f.signal(1);  // the loop does not run
  CHECK(f.arrived() == Vectors{1});
}

TEST_CASE("probe: vector 0 serves the admin queue, its signal is no I/O completion") {
  Fixture f;
  f.signal(0);
  f.loop.run();
  CHECK(f.marks.at(DeviceMark::first_interrupt).has_value());
  CHECK(!f.marks.at(DeviceMark::first_io_completion).has_value());
  CHECK(f.arrived() == Vectors{0});
  CHECK(f.loop.watches() == 2);  // 1 and 2 are still probed
}

TEST_CASE("probe: after the first I/O completion every vector is connected, new ones at once") {
  Fixture f;
  f.signal(1);
  f.signal(2);  // both before the loop comes round
  f.loop.run();
  CHECK(f.loop.watches() == 1);  // vector 0
  CHECK(f.arrived() == Vectors{1, 2});
  f.probe.disconnect(f.fds[2].get(), 26);
  REQUIRE(f.connect(2));
  CHECK(f.loop.watches() == 1);
  f.signal(2);
  CHECK(f.arrived() == Vectors{2});
}

TEST_CASE("one vector for all queues: vector 0 has signalled and no other was ever connected") {
  Fixture one(1);
  CHECK(!shares_one_vector(one.marks));  // nothing has completed yet
  one.signal(0);
  one.loop.run();
  CHECK(shares_one_vector(one.marks));
  CHECK(one.arrived() == Vectors{0});
  Fixture two(2);
  two.signal(0);
  two.loop.run();
  CHECK(!shares_one_vector(two.marks));
}

TEST_CASE("probe: a vector masked before its first signal keeps it pending, then delivers once") {
  Fixture f;
  f.probe.disconnect(f.fds[1].get(), 25);
  CHECK(f.loop.watches() == 2);
  f.signal(1);
  f.signal(1);
  f.loop.run();
  CHECK(!f.marks.at(DeviceMark::first_interrupt).has_value());
  CHECK(f.arrived().empty());
  REQUIRE(f.connect(1));
  f.loop.run();
  CHECK(f.arrived() == Vectors{1});
  CHECK(f.arrived().empty());
}

TEST_CASE("NVMe 1.4 §3.1.5, §3.1.6: CC.EN written 1 and CSTS.RDY read as 1 are stamped") {
  DeviceMarks marks;
  AccessMarks access(marks, true);
  const std::byte one[8] = {std::byte{1}};
  const std::byte zero[8] = {};
  const std::span<const std::byte> set(one, 4), clear(zero, 4);
  access.read(0, 0x1c, clear);
  CHECK(marks.at(DeviceMark::bar_access).has_value());
  access.wrote(0, 0x14, clear);
  access.wrote(2, 0x14, set);  // another region
  access.wrote(0, 0x24, set);  // another register
  CHECK(!marks.at(DeviceMark::nvme_enabled).has_value());
  CHECK(!marks.at(DeviceMark::nvme_ready).has_value());
  access.wrote(0, 0x14, set);
  access.read(0, 0x1c, set);
  CHECK(marks.at(DeviceMark::nvme_enabled).has_value());
  CHECK(marks.at(DeviceMark::nvme_ready).has_value());

  DeviceMarks other;
  AccessMarks not_nvme(other, false);
  not_nvme.wrote(0, 0x14, set);
  CHECK(!other.at(DeviceMark::nvme_enabled).has_value());
}
