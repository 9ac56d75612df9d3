// A guest may do anything: random traffic to config space (CF8/CFC and ECAM), BARs, MSI-X table and
// ports, over a real bus, function, client and server, against a model of what a guest must see;
// and the same from several threads at once, after which the model must still fit.
#include <array>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "devices/guest_log.h"
#include "tests/unit/vmm_hostile_board.h"
#include "tests/unit/vmm_hostile_model.h"

using namespace outboard;
using namespace outboard::hostile;

namespace {

// What a guest that means harm would try more often than chance does.
class Hostile {
 public:
  Hostile(std::uint64_t seed, std::array<std::uint64_t, 4> placed)
      : random_(seed), placed_(placed) {}

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  std::size_t width(std::size_t most) {
    const std::size_t size = std::size_t{1} << below(4);
    return size > most ? most : size;
  }
  std::uint64_t value() { return random_() >> below(64); }

  // Places where a BAR does harm: over RAM, the machine's own, another BAR, and where it was.
  std::uint64_t place() {
    switch (below(10)) {
      case 0:
        return below(kRamEnd);
      case 1:
        return kEcam + below(0x10) * 0x8000 - 0x4000;
      case 2:
        return kOwn - 0x4000 + below(4) * 0x10'0000;
      case 3:
        return ~std::uint64_t{0} << below(64);
      case 4:
        return 0xc000 + below(0x100) * 0x20;
      case 5:
        return kPorts & ~0x1fu;
      default:
        return placed_[below(4)] + below(3) * 0x4000;
    }
  }
  std::uint32_t reg() {
    static constexpr std::array<std::uint32_t, 16> kInteresting{0x04, 0x04, 0x10, 0x14, 0x18, 0x1c,
                                                                0x20, 0x30, 0x44, 0x50, 0x52, 0x68,
                                                                0xa0, 0xa2, 0xb0, 0};
    return one_in(8) ? static_cast<std::uint32_t>(below(0x1000)) : kInteresting[below(16)];
  }

 private:
  std::mt19937_64 random_;
  const std::array<std::uint64_t, 4> placed_;
};

std::array<std::uint64_t, 4> placed_of(Model& model) {
  std::array<std::uint64_t, 4> out{};
  for (std::size_t i = 0; i < 4; ++i) out[i] = model.bars()[i].placed;
  return out;
}

// One step of traffic. With a model it is checked; without one (several threads) it need only be
// survived.
void step(Board& board, vmm::Bus::Reader& cpu, Hostile& hostile, Model* model,
          std::span<const std::uint64_t> bases) {
  switch (hostile.below(16)) {
    case 0: {  // a whole BAR
      static constexpr std::array<std::uint32_t, 4> kBars{0x10, 0x18, 0x1c, 0x30};
      const std::uint32_t reg = kBars[hostile.below(kBars.size())];
      const std::uint64_t at = hostile.place() | (reg == 0x30 ? 1 : 0);
      const bool by_ports = hostile.one_in(2);
      for (std::uint32_t half = 0; half < (reg == 0x10 ? 2u : 1u); ++half) {
        const auto value = static_cast<std::uint32_t>(at >> 32 * half);
        board.config(cpu, reg + 4 * half, 4, value, by_ports);
        if (model != nullptr) model->config_write(reg + 4 * half, 4, value);
      }
      break;
    }
    case 1:
    case 2: {
      const bool by_ports = hostile.one_in(2);
      std::uint32_t reg = hostile.reg();
      if (by_ports) reg &= 0xff;
      const std::size_t size = hostile.width(4);
      reg &= ~static_cast<std::uint32_t>(size - 1);
      std::uint64_t value = hostile.value();
      if (reg == 4) value = hostile.one_in(4) ? hostile.below(8) : 7;
      if ((reg >= 0x10 && reg < 0x28) || reg == 0x30) {
        const std::uint64_t at = hostile.place();
        value = reg == 0x14 ? at >> 32 : at;
        if (reg == 0x30) value |= hostile.below(2);
      }
      value &= ones(size);
      const bool write = hostile.one_in(2);
      const std::uint64_t got =
          board.config(cpu, reg, size, write ? std::optional(value) : std::nullopt, by_ports);
      if (model == nullptr) break;
      CAPTURE(reg);
      CAPTURE(size);
      if (write) model->config_write(reg, size, static_cast<std::uint32_t>(value));
      if (write || size != 4) break;
      if ((reg >= 0x10 && reg < 0x28) || reg == 0x30) CHECK(got == model->bar_register(reg));
      if (reg == 0) CHECK(got == 0x00014e58);
      break;
    }
    case 3: {  // somewhere else on the bus, and no function at all
      const std::uint64_t slot = hostile.below(32);
      const Access access{Space::mmio, kEcam + slot * 0x8000 + (hostile.below(0x1000) & ~3u), 4,
                          hostile.one_in(2) ? std::optional(hostile.value()) : std::nullopt};
      if (slot == 1) break;
      const std::uint64_t got = board.run(cpu, access);
      if (slot > 1 && !access.value) CHECK(got == 0xffff'ffff);
      break;
    }
    default: {
      const bool ports = hostile.one_in(6);
      const std::size_t size = hostile.width(ports ? 4 : 8);
      std::uint64_t at = hostile.one_in(8) ? hostile.place() : bases[hostile.below(bases.size())];
      at += hostile.one_in(4) ? 0x2000 + hostile.below(0x80) : hostile.below(0x4000);
      if (ports) at = bases[1] + hostile.below(0x40);
      at &= ~static_cast<std::uint64_t>(size - 1);
      if (ports) at &= 0xffff;
      // A port of the config mechanism is used as such above.
      if (ports && at + size > kPorts && at < kPorts + PciHost::kConfigPortsSize) break;
      const Access access{
          ports ? Space::pio : Space::mmio, at, size,
          hostile.one_in(2) ? std::optional(hostile.value() & ones(size)) : std::nullopt};
      // A write into config space would be one that the model knows nothing of.
      if (!ports && at >= kEcam && at < kEcam + PciHost::kEcamSize) break;
      const std::uint64_t got = board.run(cpu, access);
      if (model == nullptr) break;
      const auto wanted = model->access(access);
      if (access.value || !wanted) break;
      CAPTURE(at);
      CAPTURE(size);
      CAPTURE(ports);
      CHECK(got == *wanted);
      break;
    }
  }
}

// Where the BARs are, or would be.
std::array<std::uint64_t, 4> bases_of(Model& model) {
  std::array<std::uint64_t, 4> out{};
  for (std::size_t i = 0; i < 4; ++i) out[i] = model.bars()[i].at.value_or(model.bars()[i].address);
  return out;
}

std::uint64_t steps(std::uint64_t few) {
  return std::getenv("OUTBOARD_FULL") != nullptr ? 100 * few : few;
}

}  // namespace

TEST_CASE("random config, BAR, MSI-X and port traffic: the guest sees what the model says") {
  for (const std::uint64_t seed : {1, 2, 3, 4}) {
    CAPTURE(seed);
    Board board;
    Model model(board);
    vmm::Bus::Reader cpu(board.bus);
    Hostile hostile(seed, placed_of(model));
    for (std::uint64_t i = 0; i < steps(2500); ++i) {
      CAPTURE(i);
      step(board, cpu, hostile, &model, bases_of(model));
      if (hostile.one_in(500)) {
        board.host.reset();
        model.machine_reset();
      }
      if (hostile.one_in(50)) {
        board.loop.run();
        (void)board.msi.deliver();
      }
    }
    CHECK(board.client->alive());
    CHECK(board.bus.retired() <= 2);
  }
}

TEST_CASE("the same from four threads at once: nothing is lost, and afterwards the model fits") {
  Board board;
  Model model(board);
  std::atomic<bool> stop{false};
  std::thread loop([&] {
    while (!stop.load()) board.loop.run(1);
  });
  std::vector<std::thread> cpus;
  for (std::uint64_t seed = 10; seed < 14; ++seed) {
    cpus.emplace_back([&, seed] {
      vmm::Bus::Reader cpu(board.bus);
      Hostile hostile(seed, placed_of(model));
      const auto bases = placed_of(model);
      for (std::uint64_t i = 0; i < steps(1000); ++i) step(board, cpu, hostile, nullptr, bases);
    });
  }
  for (std::thread& cpu : cpus) cpu.join();
  stop.store(true);
  loop.join();

  // Into a known state, and on with one CPU.
  CHECK(board.client->alive());
  board.host.reset();
  vmm::Bus::Reader cpu(board.bus);
  CHECK(board.config(cpu, 0, 4, std::nullopt, false) == 0x00014e58);
  CHECK(board.config(cpu, 4, 2, std::nullopt, true) == 0);
  for (const Model::Bar& bar : model.bars()) {
    const std::uint64_t got = board.config(cpu, bar.reg, 4, std::nullopt, true);
    CHECK((got & ~0xfULL) == (bar.placed & 0xffff'fff0));
  }
  board.config(cpu, 4, 2, 3, false);
  const std::uint64_t base = model.bars()[0].placed;
  board.run(cpu, {Space::mmio, base + 8, 4, 0x1234'5678});
  CHECK(board.run(cpu, {Space::mmio, base + 8, 4, std::nullopt}) == 0x1234'5678);
  board.run(cpu, {Space::mmio, base + kShared + 8, 4, 0x600d'600d});
  CHECK(board.run(cpu, {Space::mmio, base + kShared + 8, 4, std::nullopt}) == 0x600d'600d);
  CHECK(board.pages.count() == 1);
}

TEST_CASE("a BAR over RAM: no page of the device comes over it, the lines are few, all counted") {
  constexpr std::uint64_t kMoves = 200;
  Board board;
  vmm::Bus::Reader cpu(board.bus);
  board.config(cpu, 0x14, 4, 0, false);
  board.config(cpu, 4, 2, 2, false);
  const std::size_t before = board.log.count("");
  for (std::uint64_t i = 0; i < kMoves; ++i) {
    board.config(cpu, 0x10, 4, 0x10'0000 + i % 16 * 0x4000 + 0x4000, false);
    CHECK(board.pages.count() == 0);
  }
  const std::size_t lines = board.log.count("shared pages stay trapped");
  const std::uint64_t counted = board.function->counters().lines_suppressed;
  CHECK(lines <= GuestLog::kBurst);
  CHECK(board.log.count("") - before + counted == board.pages.asked);
  CHECK(counted >= kMoves - 2 * GuestLog::kBurst);
}
