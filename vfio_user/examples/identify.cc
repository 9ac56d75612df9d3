// A vfio-user client in a hundred lines: attaches to a device server and says what device it is.
//
//   identify /run/some-device.sock
//
// It only reads: no memory is lent to the device and no interrupt is armed. Exit status: 0 when the
// device answered, 1 when not, 2 for a wrong command line.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "vfio_user/client.h"

namespace vu = outboard::vfio_user;

namespace {

// A little-endian register of the configuration space; all ones beyond its end, as on a real bus.
std::uint32_t config(const vu::DeviceDescription& device, std::size_t offset, std::size_t size) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t at = offset + i;
    const auto byte =
        at < device.config.size() ? std::to_integer<std::uint32_t>(device.config[at]) : 0xffu;
    value |= byte << (8 * i);
  }
  return value;
}

void print_identity(const vu::DeviceDescription& device) {
  // PCI 3.0 §6.1: vendor 00h, device 02h, revision 08h, class code 09h, subsystem 2Ch and 2Eh.
  std::printf("identity   %04x:%04x revision %02x class %06x subsystem %04x:%04x\n",
              config(device, 0x00, 2), config(device, 0x02, 2), config(device, 0x08, 1),
              config(device, 0x09, 3), config(device, 0x2c, 2), config(device, 0x2e, 2));
  std::printf("reset      %s\n", device.resettable ? "yes" : "no");
}

void print_region(const vu::Region& region) {
  static constexpr const char* kNames[] = {"BAR0", "BAR1", "BAR2",   "BAR3", "BAR4",
                                           "BAR5", "ROM",  "config", "VGA"};
  if (region.size == 0 || region.index >= std::size(kNames)) return;
  std::printf("%-10s 0x%llx bytes %c%c", kNames[region.index],
              static_cast<unsigned long long>(region.size), region.readable ? 'r' : '-',
              region.writable ? 'w' : '-');
  for (const vu::SparseArea& area : region.areas) {
    std::printf(", pages 0x%llx+0x%llx", static_cast<unsigned long long>(area.offset),
                static_cast<unsigned long long>(area.size));
  }
  if (!region.trapped_because.empty()) std::printf(", trapped: %s", region.trapped_because.c_str());
  std::printf("\n");
}

void print_irq(const vu::Irq& irq) {
  static constexpr const char* kNames[] = {"INTx", "MSI", "MSI-X", "ERR", "REQ"};
  if (irq.count == 0 || irq.index >= std::size(kNames)) return;
  std::printf("%-10s %u%s%s\n", kNames[irq.index], irq.count, irq.maskable ? ", maskable" : "",
              irq.automasked ? ", masked by being raised" : "");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: identify SOCKET\n");
    return 2;
  }
  vu::Result<std::unique_ptr<vu::Client>> client = vu::Client::connect(argv[1]);
  if (!client) {
    std::fprintf(stderr, "identify: %s\n", client.error().message.c_str());
    return 1;
  }
  vu::Result<vu::DeviceDescription> device = (*client)->attach({});
  if (!device) {
    std::fprintf(stderr, "identify: %s\n", device.error().message.c_str());
    return 1;
  }
  print_identity(*device);
  for (const vu::Region& region : device->regions) print_region(region);
  for (const vu::Irq& irq : device->irqs) print_irq(irq);

  const vu::Capabilities& server = (*client)->server();
  std::printf("server     %u fds a message, %llu bytes a transfer, %u windows, twin socket %s\n",
              server.max_msg_fds, static_cast<unsigned long long>(server.max_data_xfer_size),
              server.max_dma_maps, server.twin_socket ? "yes" : "no");
  std::printf("attach     %u round trips\n", device->round_trips + 1);
  return 0;
}
