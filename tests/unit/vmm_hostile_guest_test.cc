// A guest may do anything: random traffic to config space (CF8/CFC and ECAM), BARs, MSI-X table and
// ports, over a real bus, function, client and server, against a model of what a guest must see;
// and the same from several threads at once, after which the model must still fit.
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "devices/pci_host.h"
#include "tests/unit/devices_test_device.h"
#include "vmm/bus.h"

using namespace outboard;
using namespace outboard::devices;

namespace {

constexpr std::uint64_t kRamEnd = 0x800'0000;
constexpr std::uint64_t kEcam = 0xe000'0000;
constexpr std::uint64_t kOwn = 0xfec0'0000;  // interrupt controllers
constexpr std::uint64_t kOwnEnd = 0x1'0000'0000;
constexpr std::uint16_t kPorts = 0xcf8;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kShared = 0x1000;  // of BAR 0: the page that is a memslot
constexpr std::uint32_t kVectors = 8;

// As the machine's memslots: nothing of a device comes over RAM, over the machine's own, or over
// another slot.
class StrictMapper final : public PageMapper {
 public:
  struct Slot {
    std::uint64_t at;
    std::span<std::byte> host;
  };

  Result<SlotId> map(GuestAddress address, std::span<std::byte> host, bool) override {
    const std::lock_guard lock(mutex_);
    const std::uint64_t at = raw(address);
    const std::uint64_t end = at + host.size();
    ++asked;
    CHECK(at % kPage == 0);
    if (end <= at || at < kRamEnd || (at < kEcam + PciHost::kEcamSize && kEcam < end) ||
        (at < kOwnEnd && kOwn < end)) {
      return failure("over memory");
    }
    for (const auto& [id, slot] : slots_) {
      if (at < slot.at + slot.host.size() && slot.at < end) return failure("over a slot");
    }
    slots_.emplace(++next_, Slot{at, host});
    return SlotId{next_};
  }
  void unmap(SlotId id) override {
    const std::lock_guard lock(mutex_);
    CHECK(slots_.erase(static_cast<std::uint32_t>(id)) == 1);
  }
  std::optional<Slot> find(std::uint64_t at) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, slot] : slots_) {
      if (at >= slot.at && at - slot.at < slot.host.size()) return slot;
    }
    return std::nullopt;
  }
  std::size_t count() const {
    const std::lock_guard lock(mutex_);
    return slots_.size();
  }

  std::uint64_t asked = 0;  // under mutex_

 private:
  mutable std::mutex mutex_;
  std::uint32_t next_ = 0;
  std::map<std::uint32_t, Slot> slots_;
};

struct Access {
  Space space;
  std::uint64_t address;
  std::size_t size;  // 1, 2, 4 or 8; the address is a multiple of it
  std::optional<std::uint64_t> value;
};

constexpr std::uint64_t ones(std::size_t size) {
  return ~0ULL >> (64 - 8 * size);
}

// The machine as far as a guest's accesses go. RAM and memslots answer before any exit, as KVM has
// it.
class Board {
 public:
  Board() {
    options.name = "disk0";
    options.slot = 1;
    options.intx_gsi = 16;
    options.log = [this](Severity, std::string line) { log(std::move(line)); };
    auto pair = vfio_user::SocketTransport::make_pair();
    REQUIRE(pair);
    server.emplace(std::move(pair->second), device);
    auto adopted = vfio_user::Client::adopt(std::move(pair->first), {});
    REQUIRE(adopted);
    client = std::move(*adopted);
    auto description = client->attach({});
    REQUIRE(description);
    const Machine machine{bus, pages, msi, intx, io_events, loop};
    auto made = VfioFunction::create(*client, std::move(*description), machine, options);
    REQUIRE(made);
    function = std::move(*made);
    BarAllocator allocator({0xc0000000, 0x20000000}, {0x10'0000'0000, 0x10'0000'0000},
                           {0xc000, 0x4000});
    REQUIRE(function->place_bars(allocator));
    host.add(1, *function);
    ecam_ = bus.map(Space::mmio, kEcam, PciHost::kEcamSize, host.ecam(), Priority::fixed);
    ports_ = bus.map(Space::pio, kPorts, PciHost::kConfigPortsSize, host.config_ports(),
                     Priority::fixed);
  }
  ~Board() {
    client->close();
    function.reset();
    CHECK(pages.count() == 0);
    CHECK(msi.gsis() == 0);
    CHECK(loop.watches() == 0);
  }

  // A read's value; RAM is 0 and keeps nothing.
  std::uint64_t run(vmm::Bus::Reader& cpu, const Access& access) {
    std::array<std::byte, 8> bytes{};
    const auto data = std::span(bytes).first(access.size);
    if (access.value) store_le(data, *access.value);
    if (access.space == Space::mmio) {
      if (access.address < kRamEnd) return 0;
      if (const auto slot = pages.find(access.address)) {
        const auto there = slot->host.subspan(access.address - slot->at, access.size);
        std::ranges::copy(access.value ? data : there, access.value ? there.begin() : data.begin());
        return load_le(data);
      }
    }
    if (access.value) {
      cpu.write(access.space, access.address, data);
    } else {
      cpu.read(access.space, access.address, data);
    }
    return load_le(data);
  }
  std::uint64_t config(vmm::Bus::Reader& cpu, std::uint32_t reg, std::size_t size,
                       std::optional<std::uint64_t> value, bool by_ports) {
    if (!by_ports) return run(cpu, {Space::mmio, kEcam + 0x8000 + reg, size, value});
    const std::lock_guard lock(latch);
    run(cpu, {Space::pio, kPorts, 4, 0x8000'0800 | (reg & 0xfc)});
    return run(cpu, {Space::pio, kPorts + 4u + reg % 4, size, value});
  }

  TestDevice device;
  LogLines log;
  vmm::Bus bus;
  StrictMapper pages;
  FakeMsiRouter msi;
  FakeIntxRouter intx;
  FakeIoEvents io_events;
  FakeEventLoop loop;
  VfioFunctionOptions options;
  std::optional<ServerThread> server;
  std::unique_ptr<vfio_user::Client> client;
  std::unique_ptr<VfioFunction> function;
  PciHost host;
  std::mutex latch;  // guests serialise address and data port themselves

 private:
  MapId ecam_{};
  MapId ports_{};
};

// What the guest must see, from the specification: PCI 3.0 §6.2.5 and the rules of overlap (RAM,
// the machine's own, then who was there first).
class Model {
 public:
  struct Bar {
    std::uint32_t region;
    std::uint32_t reg;
    std::uint64_t size;      // as decoded: a power of two
    std::uint64_t contents;  // bytes that exist
    bool io, wide, rom;
    std::uint64_t placed = 0;
    std::uint64_t address = 0;
    bool enabled = true;                // of a ROM
    std::optional<std::uint64_t> at{};  // where it answers
    std::uint64_t age = 0;
  };

  explicit Model(Board& board) : board_(board) {
    for (Bar& bar : bars_) {
      for (const BarInfo& info : board.function->bars()) {
        if (info.region == bar.region) bar.placed = bar.address = info.address;
      }
      REQUIRE(bar.placed != 0);
    }
    for (std::uint32_t i = 0; i < kVectors; ++i) table_[4 * i + 3] = 1;
  }

  std::array<Bar, 4>& bars() { return bars_; }

  std::uint32_t bar_register(std::uint32_t reg) const {
    for (const Bar& bar : bars_) {
      if (bar.wide && reg == bar.reg + 4) return static_cast<std::uint32_t>(bar.address >> 32);
      if (reg != bar.reg) continue;
      const auto low = static_cast<std::uint32_t>(bar.address);
      return low | (bar.io ? 1 : bar.wide ? 4 : bar.rom && bar.enabled ? 1 : 0);
    }
    return 0;
  }

  void config_write(std::uint32_t reg, std::size_t size, std::uint32_t value) {
    if (reg % size != 0 || size > 4) return;
    const bool is_bar = (reg >= 0x10 && reg < 0x28) || (reg >= 0x30 && reg < 0x34);
    if (is_bar) {
      const std::uint32_t base = reg & ~3u;
      const std::uint32_t shift = 8 * (reg % 4);
      const auto mask = static_cast<std::uint32_t>(ones(size) << shift);
      write_bar(base, (bar_register(base) & ~mask) | ((value << shift) & mask));
    } else if (reg == 4) {
      command_ = value & 3;
      if (size == 1) command_ = value & 3;
    } else if (express_control(reg, size, value)) {
      command_ = 0;  // a function level reset
      table_reset();
    } else if (reg == 0x50 && size == 4) {
      msix(value >> 16);
    } else if (reg == 0x52 && size == 2) {
      msix(value);
    } else if (reg == 0x53) {
      msix(value << 8);
    }
    settle();
  }

  void machine_reset() {
    command_ = 0;
    for (Bar& bar : bars_) bar.address = bar.placed;
    bars_[3].enabled = false;
    table_reset();
    settle();
  }

  // Nothing: the model does not say.
  std::optional<std::uint64_t> access(const Access& access) {
    if (access.space == Space::mmio) {
      if (access.address < kRamEnd) return 0;
      if (shared_slot() && in_shared(access.address)) {
        return shared(access.address - *bars_[0].at - kShared, access);
      }
      if (access.address >= kEcam && access.address < kEcam + PciHost::kEcamSize) return {};
    } else if (access.address + access.size > kPorts &&
               access.address < kPorts + PciHost::kConfigPortsSize) {
      return {};
    }
    Bar* owner = nullptr;
    for (Bar& bar : bars_) {
      if (!bar.at || bar.io != (access.space == Space::pio)) continue;
      if (access.address < *bar.at || access.address - *bar.at >= bar.size) continue;
      if (owner == nullptr || bar.age < owner->age) owner = &bar;
    }
    if (owner == nullptr) return ones(access.size);
    return device_access(*owner, access.address - *owner->at, access);
  }

 private:
  void write_bar(std::uint32_t reg, std::uint32_t value) {
    for (Bar& bar : bars_) {
      if (bar.wide && reg == bar.reg + 4) {
        bar.address = (std::uint64_t{value} << 32 | (bar.address & 0xffff'ffff));
      } else if (reg == bar.reg) {
        if (bar.rom) bar.enabled = (value & 1) != 0;
        bar.address = (bar.wide ? bar.address >> 32 << 32 : 0) | value;
      } else {
        continue;
      }
      bar.address &= ~(bar.size - 1);
    }
  }

  static bool express_control(std::uint32_t reg, std::size_t size, std::uint32_t value) {
    if (reg == 0x68 && size >= 2) return (value & 0x8000) != 0;
    return reg == 0x69 && (value & 0x80) != 0;
  }

  void settle() {
    for (Bar& bar : bars_) {
      std::optional<std::uint64_t> wanted;
      const std::uint64_t last = bar.wide ? ~0ULL : bar.io ? 0xffff : 0xffff'ffff;
      if ((command_ & (bar.io ? 1 : 2)) != 0 && bar.address != 0 && bar.enabled &&
          bar.address < last - (bar.size - 1)) {
        wanted = bar.address;
      }
      if (wanted == bar.at) continue;
      bar.at = wanted;
      bar.age = ++ages_;
    }
  }

  // The page of BAR 0 is a memslot unless it would lie over something.
  bool shared_slot() const {
    if (!bars_[0].at) return false;
    const std::uint64_t at = *bars_[0].at + kShared;
    return at >= kRamEnd && !(at >= kEcam && at < kEcam + PciHost::kEcamSize) &&
           !(at >= kOwn && at < kOwnEnd);
  }
  bool in_shared(std::uint64_t address) const { return address - (*bars_[0].at + kShared) < kPage; }

  std::uint64_t shared(std::uint64_t offset, const Access& access) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < access.size; ++i) {
      std::uint8_t& byte = page_[offset + i];
      if (access.value) byte = static_cast<std::uint8_t>(*access.value >> (8 * i));
      value |= std::uint64_t{byte} << (8 * i);
    }
    return value;
  }

  std::optional<std::uint64_t> device_access(const Bar& bar, std::uint64_t offset,
                                             const Access& access) {
    if (offset + access.size > bar.contents) return ones(access.size);
    if (bar.region == 0 && offset >= kTable) return overlay(offset, access);
    if (bar.rom && access.value) return *access.value;
    std::uint64_t& word = words_[{bar.region, offset % 0x100}];
    if (access.value) word = *access.value & ones(access.size);
    return word & ones(access.size);
  }

  std::optional<std::uint64_t> overlay(std::uint64_t offset, const Access& access) {
    if (offset < kTable + 16 * kVectors) {
      const std::size_t first = (offset - kTable) / 4;
      if (access.size < 4) return access.value ? *access.value : ones(access.size);
      for (std::size_t i = 0; i < access.size / 4 && access.value; ++i) {
        const auto word = static_cast<std::uint32_t>(*access.value >> (32 * i));
        const std::size_t column = (first + i) % 4;
        table_[first + i] = column == 0 ? word & ~3u : column == 3 ? word & 1 : word;
      }
      std::uint64_t value = table_[first];
      if (access.size == 8) value |= std::uint64_t{table_[first + 1]} << 32;
      return value;
    }
    if (offset >= kPba && offset < kPba + 8) return {};
    std::uint64_t& word = words_[{0, offset % 0x100}];
    if (access.value) word = *access.value & ones(access.size);
    return word & ones(access.size);
  }

  void msix(std::uint32_t) {}
  void table_reset() {
    table_.fill(0);
    for (std::uint32_t i = 0; i < kVectors; ++i) table_[4 * i + 3] = 1;
  }

  Board& board_;
  std::array<Bar, 4> bars_{Bar{0, 0x10, 0x4000, 0x4000, false, true, false},
                           Bar{2, 0x18, 0x20, 0x20, true, false, false},
                           Bar{3, 0x1c, 0x4000, 0x3000, false, false, false},
                           Bar{6, 0x30, 0x800, 0x800, false, false, true, 0, 0, false, {}, 0}};
  std::uint32_t command_ = 0;
  std::uint64_t ages_ = 0;
  std::array<std::uint8_t, kPage> page_{};
  std::array<std::uint32_t, 4 * kVectors> table_{};
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint64_t> words_;
};

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
    return one_in(4) ? static_cast<std::uint32_t>(below(0x1000)) : kInteresting[below(16)];
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
  switch (hostile.below(8)) {
    case 0:
    case 1:
    case 2: {
      const bool by_ports = hostile.one_in(2);
      std::uint32_t reg = hostile.reg();
      if (by_ports) reg &= 0xff;
      const std::size_t size = hostile.width(4);
      reg &= ~static_cast<std::uint32_t>(size - 1);
      std::uint64_t value = hostile.value();
      if (reg == 4) value = hostile.below(8);
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
  CHECK(board.log.count("") - before + counted == board.pages.asked - 1);
  CHECK(counted >= kMoves - 2 * GuestLog::kBurst);
}
