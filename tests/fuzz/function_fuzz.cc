// A PCI function and its guest: config space through both mechanisms, BARs, MSI-X table and reset,
// over a server that answers anything, beside an event loop that runs in between.
#define DOCTEST_CONFIG_DISABLE

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "devices/guest_log.h"
#include "devices/pci_host.h"
#include "devices/pci_registers.h"
#include "devices/vfio_function.h"
#include "tests/fuzz/fuzzed_server.h"
#include "tests/fuzz/input.h"
#include "tests/unit/devices_fakes.h"

using namespace outboard;
using namespace outboard::devices;
using fuzz::Input;
using fuzz::require;

namespace {

constexpr std::uint32_t kSlot = 1;
constexpr std::size_t kMostSteps = 100;

// As devices_test_device.h has it: PM, MSI-X, Express, MSI and a vendor's own capability.
std::vector<std::byte> config_space() {
  std::vector<std::byte> out(256);
  const auto set = [&](std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
    store_le(std::span(out).subspan(reg, size), value);
  };
  set(pci::kVendorId, 4, 0x00014e58);
  set(pci::kStatus, 2, 0x0010);
  set(pci::kRevisionId, 4, 0x01080201);
  set(pci::kBar0, 4, pci::bar::kType64);
  set(pci::kBar0 + 8, 4, pci::bar::kIo);
  set(pci::kCapabilities, 1, 0x40);
  set(pci::kInterruptPin, 1, 1);
  set(0x40, 4, 0x00035001);
  set(0x50, 4, 0x00076011);
  set(0x54, 4, 0x2000);
  set(0x58, 4, 0x3000);
  set(0x60, 4, 0x0002a010);
  set(0x64, 4, 0x10008000);
  set(0x68, 2, 0x2810);
  set(0xa0, 4, 0x0184c005);
  set(0xc0, 4, 0x5a100009);
  return out;
}

struct Guest {
  FakeBus bus;
  FakeMapper pages;
  FakeMsiRouter msi;
  FakeIntxRouter intx;
  FakeIoEvents io_events;
  FakeEventLoop loop;
  PciHost host;

  void access(Input& input, BusDevice& device, std::uint64_t offset, std::size_t size) {
    std::array<std::byte, 8> data{};
    const auto bytes = std::span(data).first(size);
    if (input.one_in(2)) {
      device.read(offset, bytes);
    } else {
      const std::uint64_t value = input.one_in(2) ? input.number() : input.take<std::uint32_t>();
      store_le(bytes, value);
      device.write(offset, bytes);
    }
  }
};

// Registers that matter more than others.
std::uint32_t config_register(Input& input) {
  static constexpr std::uint32_t kRegisters[] = {pci::kCommand,
                                                 pci::kBar0,
                                                 pci::kBar0 + 4,
                                                 pci::kBar0 + 8,
                                                 pci::kBar0 + 16,
                                                 pci::kBar0 + 32,
                                                 0x44,
                                                 0x50,
                                                 0x52,
                                                 0x60,
                                                 0x68,
                                                 0xa0,
                                                 0xa4,
                                                 0xac,
                                                 0xb0,
                                                 0xc0};
  return static_cast<std::uint32_t>(input.one_in(4) ? input.take<std::uint16_t>() & 0xfff
                                                    : input.one_of(kRegisters));
}

void step(Input& input, Guest& guest, VfioFunction& function) {
  static constexpr std::size_t kSizes[] = {4, 1, 2, 8};
  switch (input.below(8)) {
    case 0:
    case 1: {
      const std::uint64_t slot = input.one_in(16) ? input.below(32) : kSlot;
      guest.access(input, guest.host.ecam(), slot << 15 | config_register(input),
                   input.one_of(kSizes));
      break;
    }
    case 2: {
      std::array<std::byte, 4> address{};
      store_le(address, 0x8000'0000 | kSlot << 11 | (config_register(input) & 0xfc));
      guest.host.config_ports().write(0, address);
      guest.access(input, guest.host.config_ports(), input.one_in(4) ? input.below(8) : 4,
                   1 + input.below(4));
      break;
    }
    case 3:
    case 4: {
      // A BAR where it lies now, if anywhere.
      const auto bars = function.bars();
      if (bars.empty()) break;
      const BarInfo& bar = bars[input.below(bars.size())];
      const auto space = bar.kind == BarInfo::Kind::io ? Space::pio : Space::mmio;
      const std::uint64_t offset =
          input.one_in(2) ? input.below(0x4000) : 0x2000 + input.below(0x80);
      const auto range = guest.bus.find(space, bar.address + offset);
      if (!range) break;
      const std::size_t size = input.one_of(kSizes);
      const std::uint64_t at = bar.address + offset - range->base;
      if (size > range->size - at) break;
      guest.access(input, *range->device, at, size);
      break;
    }
    case 5:
      guest.loop.run(0);
      break;
    case 6:
      static_cast<void>(guest.msi.deliver());
      guest.intx.eoi();
      break;
    default:
      if (input.one_in(8)) guest.host.reset();
      break;
  }
}

void check(const Guest& guest, VfioFunction& function) {
  require(guest.bus.count() <= 7);
  for (const auto& slot : guest.pages.slots()) {
    require(slot.at % 4096 == 0 && slot.host.size() % 4096 == 0 && !slot.host.empty());
    require(guest.bus.find(Space::mmio, slot.at).has_value());
  }
  require(guest.msi.connected() <= guest.msi.gsis());
  for (const BarInfo& bar : function.bars()) require((bar.address & (bar.size - 1)) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  static const std::vector<std::byte> plain = config_space();
  std::vector<std::byte> config = plain;
  for (std::size_t left = input.one_in(2) ? input.below(8) : 0; left > 0; --left) {
    config[input.byte()] = std::byte{input.byte()};
  }
  vfio_user::ClientOptions options;
  options.name = "fuzz";
  options.offer_twin_socket = false;
  auto client =
      vfio_user::Client::adopt(std::make_unique<fuzz::FuzzedServer>(input, config), options);
  if (!client) return 0;
  auto description = (*client)->attach({});
  if (!description) return 0;

  Guest guest;
  VfioFunctionOptions how;
  how.name = "fuzz";
  how.slot = kSlot;
  if (!input.one_in(4)) how.intx_gsi = 16;
  std::atomic<std::size_t> lines = 0;  // its interrupt's thread logs, too
  std::atomic<std::size_t> lost = 0;
  how.log = [&](Severity, const std::string&) { ++lines; };
  how.on_lost = [&](const vfio_user::Error&) { ++lost; };
  how.on_device_error = [] {};
  how.on_removal_request = [] {};
  if (input.one_in(8)) guest.pages.refuse = true;
  if (input.one_in(8)) guest.io_events.refuse = true;
  if (input.one_in(8)) guest.msi.free_gsis = static_cast<std::uint32_t>(input.below(10));
  {
    const Machine machine{guest.bus,  guest.pages,     guest.msi,
                          guest.intx, guest.io_events, guest.loop};
    auto function = VfioFunction::create(std::move(*client), std::move(*description), machine, how);
    if (!function) {
      require(!function.error().message.empty());
      return 0;
    }
    BarAllocator allocator({0xc0000000, 0x20000000}, {0x1000000000, 0x1000000000},
                           {0xc000, 0x4000});
    if (!(*function)->place_bars(allocator)) return 0;
    guest.host.add(kSlot, **function);
    for (std::size_t steps = 0; steps < kMostSteps && !input.empty(); ++steps) {
      step(input, guest, **function);
      check(guest, **function);
    }
    guest.loop.run(0);
    // The rate limit holds whatever is done: a burst of the function, and one of its link with the
    // end of each trouble.
    require(lines <= 3 * GuestLog::kBurst && lost <= 1);
  }
  require(guest.bus.count() == 0 && guest.pages.slots().empty() && guest.msi.gsis() == 0);
  require(guest.io_events.list().empty() && guest.loop.watches() == 0);
  return 0;
}
