#include <doctest/doctest.h>

#include "devices/msi.h"
#include "devices/msix.h"
#include "tests/unit/devices_fakes.h"

using namespace outboard::devices;

namespace {

constexpr std::uint64_t kLapic = 0xfee00000;

struct Bench {
  explicit Bench(std::uint32_t vectors, bool server_masks = false)
      : msix({.vectors = vectors}, server_masks, irqs, router) {}

  void write(std::uint64_t offset, std::uint32_t value) {
    std::byte bytes[4];
    store_le(bytes, value);
    CHECK(msix.write_table(offset, bytes));
  }
  void program(std::uint32_t vector, bool masked) {
    const std::uint64_t at = vector * 16;
    write(at, static_cast<std::uint32_t>(kLapic));
    write(at + 4, 0);
    write(at + 8, 0x4000 + vector);
    write(at + 12, masked ? 1 : 0);
  }
  void mask(std::uint32_t vector, bool masked) { write(vector * 16 + 12, masked ? 1 : 0); }
  std::uint64_t pba(std::uint64_t offset = 0) const {
    std::byte bytes[8];
    msix.read_pba(offset, bytes);
    return load_le(bytes);
  }

  FakeIrqs irqs;
  FakeMsiRouter router;
  Msix msix;
};

}  // namespace

TEST_CASE(
    "PCI 3.0 §6.8.2.9 table entries are zero and masked at reset, words keep what is written") {
  Bench bench(4);
  std::byte bytes[8];
  bench.msix.read_table(8, bytes);
  CHECK(load_le(bytes) == 0x100000000);
  bench.program(2, true);
  bench.msix.read_table(2 * 16, bytes);
  CHECK(load_le(bytes) == kLapic);
  bench.write(2 * 16, 0xfee00003);  // §6.8.2.6 the address is dword aligned
  bench.msix.read_table(2 * 16, bytes);
  CHECK(load_le(bytes) == kLapic);
  bench.write(2 * 16 + 12, 0xfffffffe);  // only the mask bit exists
  bench.msix.read_table(2 * 16 + 12, std::span(bytes).first(4));
  CHECK(load_le(std::span(bytes).first(4)) == 0);
  std::byte narrow{};
  bench.msix.read_table(0, {&narrow, 1});
  CHECK(narrow == std::byte{0xff});
  CHECK(bench.irqs.log.empty());
}

TEST_CASE(
    "512 entries programmed under the function mask cost one routing call when it is lifted") {
  Bench bench(512);
  CHECK(bench.msix.set_control(true, true));
  for (std::uint32_t i = 0; i < 512; ++i) bench.program(i, false);
  CHECK(bench.router.routing_calls == 0);
  CHECK(bench.irqs.log.empty());
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.router.routing_calls == 1);
  CHECK(bench.router.connected() == 512);
  CHECK(bench.irqs.log == std::vector<std::string>{"arm 2 0+512"});
}

TEST_CASE("vectors programmed one by one cost at most one routing call each, none while masked") {
  Bench bench(512);
  CHECK(bench.msix.set_control(true, false));
  for (std::uint32_t i = 0; i < 100; ++i) bench.program(i, true);
  CHECK(bench.router.routing_calls == 0);
  CHECK(bench.router.gsis() == 0);
  for (std::uint32_t i = 0; i < 100; ++i) bench.mask(i, false);
  CHECK(bench.router.routing_calls == 100);
  for (int round = 0; round < 3; ++round) {
    bench.mask(7, true);
    bench.mask(7, false);
  }
  CHECK(bench.router.routing_calls == 100);  // nothing changed
  bench.mask(7, true);
  bench.write(7 * 16 + 8, 0x5555);
  CHECK(bench.router.routing_calls == 100);
  bench.mask(7, false);
  CHECK(bench.router.routing_calls == 101);
}

TEST_CASE("lazy vectors: only entries in use get an eventfd and a GSI, in contiguous runs") {
  Bench bench(512);
  CHECK(bench.msix.set_control(true, true));
  for (const std::uint32_t i : {0U, 1U, 2U, 9U, 300U, 301U}) bench.program(i, false);
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.irqs.log == std::vector<std::string>{"arm 2 0+3", "arm 2 9+1", "arm 2 300+2"});
  CHECK(bench.router.gsis() == 6);
  CHECK(bench.router.routing_calls == 1);
}

TEST_CASE("C69 a masked vector that is signalled is pending, and is delivered once on unmask") {
  Bench bench(70);
  CHECK(bench.msix.set_control(true, true));
  bench.program(3, false);
  bench.program(65, true);
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.irqs.signal(3));
  CHECK(bench.router.deliver() == std::vector<MsiMessage>{{kLapic, 0x4003}});
  CHECK(bench.pba() == 0);
  for (int i = 0; i < 5; ++i) CHECK(bench.irqs.signal(65));
  CHECK(bench.router.deliver().empty());
  CHECK(bench.pba(8) == 2);
  bench.mask(65, false);
  CHECK(bench.pba(8) == 0);
  CHECK(bench.router.deliver() == std::vector<MsiMessage>{{kLapic, 0x4041}});
  CHECK(bench.router.deliver().empty());
}

TEST_CASE("C69 the function mask keeps every vector pending") {
  Bench bench(8);
  CHECK(bench.msix.set_control(true, true));
  for (std::uint32_t i = 0; i < 8; ++i) bench.program(i, false);
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.msix.set_control(true, true));
  CHECK(bench.router.connected() == 0);
  CHECK(bench.irqs.signal(0));
  CHECK(bench.irqs.signal(6));
  CHECK(bench.pba() == 0x41);
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.router.deliver().size() == 2);
  CHECK(bench.router.routing_calls == 1);
}

namespace {

// A server that keeps every eventfd it was ever given, and goes on signalling it.
class HoardingIrqs final : public DeviceIrqs {
 public:
  Result<void> arm(std::uint32_t, std::uint32_t start, std::span<const int> eventfds) override {
    for (std::size_t i = 0; i < eventfds.size(); ++i) {
      if (eventfds[i] >= 0)
        hoard.emplace_back(start + i, outboard::vfio_user::UniqueFd(::dup(eventfds[i])));
    }
    return {};
  }
  Result<void> disable(std::uint32_t) override { return {}; }
  Result<void> mask(std::uint32_t, std::uint32_t, std::uint32_t) override { return {}; }
  Result<void> unmask(std::uint32_t, std::uint32_t, std::uint32_t) override { return {}; }
  void signal_all(std::uint64_t value = 1) const {
    for (const auto& [vector, fd] : hoard) (void)!::write(fd.get(), &value, sizeof value);
  }
  std::vector<std::pair<std::size_t, outboard::vfio_user::UniqueFd>> hoard;
};

}  // namespace

TEST_CASE(
    "C68 an eventfd that was taken from the server reaches the guest no more, whoever signals it") {
  HoardingIrqs irqs;
  FakeMsiRouter router;
  Msix msix({.vectors = 4}, false, irqs, router);
  const auto program = [&](std::uint32_t vector, std::uint32_t data, bool masked) {
    const std::uint32_t words[] = {static_cast<std::uint32_t>(kLapic), 0, data, masked ? 1U : 0U};
    for (std::uint64_t i = 0; i < 4; ++i) {
      std::byte bytes[4];
      store_le(bytes, words[i]);
      CHECK(msix.write_table(vector * 16 + i * 4, bytes));
    }
  };
  CHECK(msix.set_control(true, true));
  program(0, 0x4000, false);
  program(1, 0x4001, false);
  CHECK(msix.set_control(true, false));
  irqs.signal_all();
  CHECK(router.deliver().size() == 2);

  // One vector masked: its old eventfd makes it pending, no more.
  program(1, 0x4001, true);
  irqs.signal_all();
  CHECK(router.deliver() == std::vector<MsiMessage>{{kLapic, 0x4000}});

  // All disabled, while signals are still on their way: none arrives, now or after the next start.
  CHECK(msix.set_control(false, false));
  irqs.signal_all();
  CHECK(router.deliver().empty());
  const std::size_t old = irqs.hoard.size();
  program(1, 0x5001, false);
  CHECK(msix.set_control(true, false));
  CHECK(irqs.hoard.size() > old);
  CHECK(router.deliver().empty());
  for (std::size_t i = 0; i < old; ++i) {
    const std::uint64_t one = 1;
    (void)!::write(irqs.hoard[i].second.get(), &one, sizeof one);
  }
  CHECK(router.deliver().empty());
  irqs.signal_all();  // the new ones
  CHECK(router.deliver().size() == 2);
}

TEST_CASE(
    "C71 C70 an eventfd at its maximum is one pending bit and one interrupt, like any other") {
  HoardingIrqs irqs;
  FakeMsiRouter router;
  Msix msix({.vectors = 1}, false, irqs, router);
  const auto put = [&](std::uint64_t at, std::uint32_t value) {
    std::byte bytes[4];
    store_le(bytes, value);
    CHECK(msix.write_table(at, bytes));
  };
  CHECK(msix.set_control(true, false));
  put(0, static_cast<std::uint32_t>(kLapic));
  put(8, 0x4000);
  irqs.signal_all(0xfffffffffffffffe);
  irqs.signal_all();  // refused: it is full
  std::byte pending[8];
  msix.read_pba(0, pending);
  CHECK(load_le(pending) == 1);
  irqs.hoard.clear();  // the server closes its own
  put(12, 0);
  CHECK(router.deliver() == std::vector<MsiMessage>{{kLapic, 0x4000}});
  CHECK(router.deliver().empty());
  msix.read_pba(0, pending);
  CHECK(load_le(pending) == 0);
}

TEST_CASE("disabling MSI-X tells the server once and gives everything back; the table stays") {
  Bench bench(16);
  CHECK(bench.msix.set_control(true, true));
  bench.program(0, false);
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.msix.set_control(false, false));
  CHECK(bench.irqs.log == std::vector<std::string>{"arm 2 0+1", "disable 2"});
  CHECK(bench.router.gsis() == 0);
  CHECK(bench.router.connected() == 0);
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.irqs.log.back() == "arm 2 0+1");
  CHECK(bench.irqs.signal(0));
  CHECK(bench.router.deliver() == std::vector<MsiMessage>{{kLapic, 0x4000}});
}

TEST_CASE("C67 an MSI-X enable and disable without a vector sends nothing") {
  Bench bench(16);
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.msix.set_control(false, false));
  CHECK(bench.irqs.log.empty());
}

TEST_CASE("C66 a refused arm leaves the vector unarmed, and the next unmask tries again") {
  Bench bench(16);
  CHECK(bench.msix.set_control(true, true));
  bench.program(0, false);
  bench.irqs.refuse_arm = true;
  CHECK_FALSE(bench.msix.set_control(true, false));
  CHECK(bench.router.connected() == 0);
  bench.irqs.refuse_arm = false;
  bench.mask(0, true);
  bench.mask(0, false);
  CHECK(bench.router.connected() == 1);
}

TEST_CASE("no GSI left: the vectors that have one work, the others are reported") {
  Bench bench(4);
  bench.router.free_gsis = 2;
  CHECK(bench.msix.set_control(true, true));
  for (std::uint32_t i = 0; i < 4; ++i) bench.program(i, false);
  const auto outcome = bench.msix.set_control(true, false);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().message == "no GSI left");
  CHECK(bench.router.connected() == 2);
}

TEST_CASE("series row 2: a server that masks vectors is told of each mask and unmask") {
  Bench bench(8, true);
  CHECK(bench.msix.set_control(true, true));
  for (std::uint32_t i = 0; i < 8; ++i) bench.program(i, i >= 4);
  CHECK(bench.msix.set_control(true, false));
  CHECK(bench.irqs.log == std::vector<std::string>{"arm 2 0+8", "mask 2 4+4"});
  bench.irqs.log.clear();
  bench.mask(3, true);
  bench.mask(3, true);
  bench.mask(3, false);
  CHECK(bench.irqs.log == std::vector<std::string>{"mask 2 3+1", "unmask 2 3+1"});
}

TEST_CASE("PCI 3.0 §6.8.1.3 MSI: the low data bits carry the vector, masks keep it pending") {
  FakeIrqs irqs;
  FakeMsiRouter router;
  Msi msi(8, false, irqs, router);
  CHECK(msi.set(true, 4, {kLapic, 0x4021}, 0b0100));
  CHECK(irqs.log == std::vector<std::string>{"arm 1 0+4"});
  CHECK(router.routing_calls == 1);
  CHECK(irqs.signal(3));
  CHECK(router.deliver() == std::vector<MsiMessage>{{kLapic, 0x4023}});
  CHECK(irqs.signal(2));
  CHECK(router.deliver().empty());
  CHECK(msi.pending() == 0b0100);
  CHECK(msi.set(true, 4, {kLapic, 0x4021}, 0));
  CHECK(router.deliver() == std::vector<MsiMessage>{{kLapic, 0x4022}});
  CHECK(msi.set(false, 4, {kLapic, 0x4021}, 0));
  CHECK(irqs.log.back() == "disable 1");
  CHECK(router.gsis() == 0);
}

TEST_CASE("MSI granted more vectors than there are uses those there are") {
  FakeIrqs irqs;
  FakeMsiRouter router;
  Msi msi(2, false, irqs, router);
  CHECK(msi.set(true, 32, {kLapic, 0x4000}, 0));
  CHECK(irqs.fds.size() == 2);
}
