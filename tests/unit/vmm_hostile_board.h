// The machine of the hostile guest's tests, as far as accesses go: a real bus, function, client and
// server; the machine's services are fakes.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <doctest/doctest.h>

#include "devices/pci_host.h"
#include "tests/unit/devices_test_device.h"
#include "vmm/bus.h"

namespace outboard::hostile {

using namespace outboard::devices;

inline constexpr std::uint64_t kRamEnd = 0x800'0000;
inline constexpr std::uint64_t kEcam = 0xe000'0000;
inline constexpr std::uint64_t kOwn = 0xfec0'0000;  // interrupt controllers
inline constexpr std::uint64_t kOwnEnd = 0x1'0000'0000;
inline constexpr std::uint16_t kPorts = 0xcf8;
inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint64_t kShared = 0x1000;  // of BAR 0: the page that is a memslot
inline constexpr std::uint32_t kVectors = 8;

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
    auto made = VfioFunction::create(client, std::move(*description), machine, options);
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
  std::shared_ptr<vfio_user::Client> client;
  std::unique_ptr<VfioFunction> function;
  PciHost host;
  std::mutex latch;  // guests serialise address and data port themselves

 private:
  MapId ecam_{};
  MapId ports_{};
};

}  // namespace outboard::hostile
