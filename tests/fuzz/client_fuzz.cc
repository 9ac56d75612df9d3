// The client against a server that answers anything: VERSION, attach, and then every kind of
// request.
#include <algorithm>
#include <memory>
#include <vector>

#include <sys/stat.h>

#include "tests/fuzz/fuzzed_server.h"
#include "tests/fuzz/input.h"
#include "vfio_user/client.h"

using namespace outboard;
using namespace outboard::vfio_user;
using fuzz::Input;
using fuzz::require;

namespace {

constexpr std::size_t kMemory = 0x10000;
constexpr std::size_t kMostCalls = 64;

// What attach() lets through is what the rest of the VMM takes for granted.
void check(const DeviceDescription& device) {
  // A server may do without the VGA region.
  require(device.regions.size() > wire::kRegionConfig &&
          device.regions.size() <= wire::kPciRegions);
  require(device.config.size() <= 4096);
  for (std::size_t i = 0; i < device.regions.size(); ++i) {
    const Region& region = device.regions[i];
    require(region.index == i);
    require(region.mappable == !region.areas.empty() && region.mappable == !region.fds.empty());
    std::uint64_t end = 0;
    for (std::size_t n = 0; n < region.areas.size(); ++n) {
      const SparseArea& area = region.areas[n];
      require(area.size > 0 && area.offset % 4096 == 0 && area.size % 4096 == 0);
      require(area.offset >= end && area.offset <= region.size &&
              area.size <= region.size - area.offset);
      end = area.offset + area.size;
      struct stat status {};
      require(::fstat(region.area_fd(n), &status) == 0 && S_ISREG(status.st_mode));
      const auto size = static_cast<std::uint64_t>(status.st_size);
      require(region.file_offset <= size && end <= size - region.file_offset);
    }
    for (const IoFd& range : region.io_fds) {
      require(range.fd && range.offset <= region.size && range.size <= region.size - range.offset);
    }
  }
  for (std::size_t i = 0; i < device.irqs.size(); ++i) {
    require(device.irqs[i].index == i && device.irqs[i].count <= 2048);
  }
}

void call(Client& client, Input& input) {
  std::byte data[256]{};
  // One that exists, mostly.
  const auto region = static_cast<std::uint32_t>(input.below(16));
  const std::uint64_t offset = input.one_in(8) ? input.number() : input.below(0x1000);
  const auto bytes = std::span(data).first(input.one_in(4) ? input.byte() : 4);
  const auto index = static_cast<std::uint32_t>(input.below(6));
  switch (input.below(12)) {
    case 0:
      if (const auto got = client.region_read(region, offset, bytes)) require(*got <= bytes.size());
      break;
    case 1:
      static_cast<void>(client.region_write(region, offset, bytes, Write::may_post));
      break;
    case 2:
      static_cast<void>(client.region_write(region, offset, bytes));
      break;
    case 3: {
      const UniqueFd fd = fuzz::event();
      std::vector<int> fds(input.below(20), fd.get());
      if (input.one_in(2)) std::fill(fds.begin(), fds.begin() + fds.size() / 2, -1);
      static_cast<void>(client.arm_irqs(index, static_cast<std::uint32_t>(input.below(10)), fds));
      break;
    }
    case 4:
      static_cast<void>(client.disable_irqs(index));
      break;
    case 5:
      static_cast<void>(client.mask_irqs(index, 0, 1));
      static_cast<void>(client.trigger_irqs(index, 0, 1));
      static_cast<void>(client.unmask_irqs(index, 0, static_cast<std::uint32_t>(input.number())));
      break;
    case 6:
      static_cast<void>(client.reset());
      break;
    case 7:
      if (const auto fds = client.region_io_fds(region)) {
        for (const IoFd& range : *fds) require(range.fd && range.size <= 8);
      }
      break;
    case 8:
      static_cast<void>(client.region_write_and_io_fds(
          region, offset, bytes.first(std::min<std::size_t>(bytes.size(), 8))));
      break;
    case 9: {
      DmaWindow window;
      window.address = input.below(8) * 0x8000;
      window.size = input.below(8) * 0x1000;
      if (input.one_in(2)) {
        static_cast<void>(client.dma_unmap(window.address, window.size));
      } else {
        static_cast<void>(client.dma_map(window));
      }
      break;
    }
    default:
      client.service();
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  static const std::vector<std::byte> config(256);
  std::vector<std::byte> memory(kMemory);

  ClientOptions options;
  options.name = "fuzz";
  options.offer_twin_socket = input.one_in(16);
  if (input.one_in(4)) {
    // Whoever finds nothing gives up at once: late replies and tombstones.
    const std::chrono::milliseconds none{0};
    options.timeouts = {none, none, none, none, none, none};
    options.timeouts_until_dead = 8;
  }
  auto adopted = Client::adopt(std::make_unique<fuzz::FuzzedServer>(input, config), options);
  if (!adopted) {
    require(!adopted.error().message.empty() && adopted.error().code > 0);
    return 0;
  }
  Client& client = **adopted;
  require(client.server().max_data_xfer_size > 0 && client.server().pgsizes > 0);

  int downs = 0;
  client.set_down_handler([&](const Error& why) {
    require(why.code > 0);
    ++downs;
  });
  const UniqueFd signal = fuzz::event();
  const SignalFd signals[] = {{kIrqErr, signal.get()}, {kIrqReq, signal.get()}};
  const UniqueFd file = fuzz::file(0);
  DmaWindow windows[] = {
      {0x1000, 0x8000, -1, 0, true, true, std::span(memory).first(0x8000)},
      {0x10000, 0x8000, file.get(), 0x8000, true, false, std::span(memory).subspan(0x8000)}};
  const auto count = input.one_in(4) ? input.below(3) : 2;
  const auto device = client.attach(std::span(windows).first(count), signals);
  if (device) {
    check(*device);
  } else {
    require(!device.error().message.empty() && device.error().code > 0);
  }
  for (std::size_t calls = 0; calls < kMostCalls && !input.empty(); ++calls) call(client, input);
  require(client.alive() || client.death().code > 0);
  client.close();
  require(!client.alive() && downs <= 1);
  return 0;
}
