#include "vmm/probe_report.h"

#include <array>
#include <cstring>
#include <string_view>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "devices/capability_list.h"
#include "devices/pci_registers.h"
#include "vmm/units.h"

namespace outboard::vmm {
namespace {

namespace pci = devices::pci;
using vfio_user::DeviceDescription;
using vfio_user::Region;

// A little-endian register of `Int`'s width; all ones beyond the end, as on a bus.
template <class Int>
Int reg(const DeviceDescription& device, std::uint32_t offset) {
  Int value = static_cast<Int>(~Int{0});
  if (offset + sizeof(Int) <= device.config.size())
    std::memcpy(&value, device.config.data() + offset, sizeof value);
  return value;
}

std::string_view region_name(std::uint32_t index) {
  constexpr std::array<std::string_view, 9> kNames = {"BAR0", "BAR1", "BAR2",   "BAR3", "BAR4",
                                                      "BAR5", "ROM",  "config", "VGA"};
  return index < kNames.size() ? kNames[index] : "device-specific";
}

std::string_view irq_name(std::uint32_t index) {
  constexpr std::array<std::string_view, 5> kNames = {"INTx", "MSI", "MSI-X", "ERR", "REQ"};
  return index < kNames.size() ? kNames[index] : "device-specific";
}

// PCI Code and ID Assignment 1.11 §1; the classes that vfio-user servers offer.
std::string_view class_name(std::uint32_t class_code) {
  switch (class_code >> 8) {
    case 0x0100:
      return "SCSI storage controller";
    case 0x0101:
      return "IDE interface";
    case 0x0106:
      return "SATA controller";
    case 0x0108:
      return (class_code & 0xff) == 2 ? "NVM Express controller" : "Non-volatile memory controller";
    case 0x0200:
      return "Ethernet controller";
    case 0x0300:
      return "VGA compatible controller";
    case 0x0403:
      return "Audio device";
    case 0x0580:
      return "Memory controller";
    case 0x0604:
      return "PCI bridge";
    case 0x0700:
      return "Serial controller";
    case 0x0780:
      return "Communication controller";
    case 0x0880:
      return "System peripheral";
    case 0x0c03:
      return "USB controller";
    case 0x1180:
      return "Signal processing controller";
    default:
      return "PCI device";
  }
}

std::string_view capability_name(std::uint16_t id) {
  switch (id) {
    case pci::capability::kPowerManagement:
      return "Power Management";
    case pci::capability::kVpd:
      return "Vital Product Data";
    case pci::capability::kMsi:
      return "MSI";
    case pci::capability::kPciX:
      return "PCI-X";
    case pci::capability::kVendor:
      return "Vendor Specific Information";
    case pci::capability::kExpress:
      return "Express";
    case pci::capability::kMsix:
      return "MSI-X";
    case pci::capability::kAdvancedFeatures:
      return "Advanced Features";
    case pci::capability::kEnhancedAllocation:
      return "Enhanced Allocation";
    default:
      return "unknown";
  }
}

struct MsixShape {
  std::uint32_t vectors, table_bar, table_offset, pba_bar, pba_offset;
};

MsixShape msix_shape(const DeviceDescription& device, std::uint16_t at) {
  const auto control = reg<std::uint16_t>(device, at + pci::msix::kControl);
  const auto table = reg<std::uint32_t>(device, at + pci::msix::kTable);
  const auto pba = reg<std::uint32_t>(device, at + pci::msix::kPba);
  return {(control & pci::msix::kSizeMask) + 1U, table & pci::msix::kBirMask,
          table & ~pci::msix::kBirMask, pba & pci::msix::kBirMask, pba & ~pci::msix::kBirMask};
}

std::string capability_detail(const DeviceDescription& device, const devices::Capability& cap) {
  const std::uint16_t at = cap.offset;
  switch (cap.id) {
    case pci::capability::kMsix: {
      const MsixShape shape = msix_shape(device, at);
      const auto control = reg<std::uint16_t>(device, at + pci::msix::kControl);
      return fmt::format(
          ": Enable{} Count={} Masked{}\n\t\tVector table: BAR={} offset={:08x}\n"
          "\t\tPBA: BAR={} offset={:08x}",
          control & pci::msix::kEnable ? '+' : '-', shape.vectors,
          control & pci::msix::kFunctionMask ? '+' : '-', shape.table_bar, shape.table_offset,
          shape.pba_bar, shape.pba_offset);
    }
    case pci::capability::kMsi: {
      const auto control = reg<std::uint16_t>(device, at + pci::msi::kControl);
      return fmt::format(
          ": Enable{} Count=1/{} Maskable{} 64bit{}", control & pci::msi::kEnable ? '+' : '-',
          1U << ((control & pci::msi::kCapableMask) >> 1),
          control & pci::msi::kPerVectorMask ? '+' : '-', control & pci::msi::k64Bit ? '+' : '-');
    }
    case pci::capability::kPowerManagement: {
      const auto control = reg<std::uint16_t>(device, at + pci::pm::kControl);
      return fmt::format(": Status: D{}", control & pci::pm::kStateMask);
    }
    case pci::capability::kExpress: {
      const auto flags = reg<std::uint16_t>(device, at + pci::express::kFlags);
      const auto can = reg<std::uint32_t>(device, at + pci::express::kDeviceCapabilities);
      return fmt::format(
          " (v{}) {}: FLReset{}", flags & 0xf,
          ((flags >> 4) & 0xf) == 9 ? "Root Complex Integrated Endpoint" : "Endpoint",
          can & pci::express::kFunctionResetCapable ? '+' : '-');
    }
    default:
      return {};
  }
}

std::string bar_kind(const DeviceDescription& device, std::uint32_t bar) {
  const auto value = reg<std::uint32_t>(device, pci::kBar0 + 4 * bar);
  if (value & pci::bar::kIo) return "I/O ports";
  return fmt::format("Memory ({}-bit, {})",
                     (value & pci::bar::kTypeMask) == pci::bar::kType64 ? 64 : 32,
                     value & pci::bar::kPrefetchable ? "prefetchable" : "non-prefetchable");
}

std::string flags_of(const Region& region) {
  return fmt::format("{}{}{}", region.readable ? 'r' : '-', region.writable ? 'w' : '-',
                     region.mappable ? 'm' : '-');
}

}  // namespace

PciIdentity identity(const DeviceDescription& device) {
  PciIdentity id;
  id.vendor = reg<std::uint16_t>(device, pci::kVendorId);
  id.device = reg<std::uint16_t>(device, pci::kDeviceId);
  id.revision = reg<std::uint8_t>(device, pci::kRevisionId);
  id.class_code = reg<std::uint32_t>(device, pci::kRevisionId) >> 8;
  id.subsystem_vendor = reg<std::uint16_t>(device, pci::kSubsystemVendorId);
  id.subsystem = reg<std::uint16_t>(device, pci::kSubsystemId);
  return id;
}

std::vector<std::string> find_faults(const DeviceDescription& device) {
  std::vector<std::string> faults;
  constexpr std::size_t kConventional = 256;
  if (device.config.size() < kConventional)
    faults.push_back(
        fmt::format("the configuration space has {} bytes; PCI needs 256", device.config.size()));
  const PciIdentity id = identity(device);
  if (id.vendor == 0xffff || id.vendor == 0)
    faults.push_back(fmt::format("vendor id {:04x} means that there is no device", id.vendor));
  if (const auto type = reg<std::uint8_t>(device, pci::kHeaderType) & 0x7f; type != 0)
    faults.push_back(fmt::format("header type {} is no endpoint's", type));
  for (const devices::Capability& cap : devices::walk_capabilities(device.config)) {
    if (cap.id != pci::capability::kMsix) continue;
    const MsixShape shape = msix_shape(device, cap.offset);
    const auto fits = [&](std::string_view what, std::uint32_t bar, std::uint64_t end) {
      const std::uint64_t size =
          bar < 6 && bar < device.regions.size() ? device.regions[bar].size : 0;
      if (end > size)
        faults.push_back(fmt::format("the MSI-X {} ends at {:#x} of BAR{}, which has {} bytes",
                                     what, end, bar, size));
    };
    fits("table", shape.table_bar,
         shape.table_offset + std::uint64_t{shape.vectors} * pci::msix::kEntrySize);
    fits("PBA", shape.pba_bar, shape.pba_offset + (shape.vectors + 63ULL) / 64 * 8);
    const std::uint32_t armed =
        device.irqs.size() > vfio_user::kIrqMsix ? device.irqs[vfio_user::kIrqMsix].count : 0;
    if (armed < shape.vectors)
      faults.push_back(
          fmt::format("MSI-X has {} vectors in configuration space, but {} can be given "
                      "an eventfd",
                      shape.vectors, armed));
  }
  return faults;
}

std::string to_text(const ProbeReport& report) {
  const DeviceDescription& device = report.device;
  const vfio_user::Capabilities& server = report.server;
  const PciIdentity id = identity(device);
  std::string out =
      fmt::format("{}: {} [{:04x}]: {:04x}:{:04x} (rev {:02x})\n", report.socket,
                  class_name(id.class_code), id.class_code >> 8, id.vendor, id.device, id.revision);
  out += fmt::format("\tSubsystem: {:04x}:{:04x}\n", id.subsystem_vendor, id.subsystem);
  out += fmt::format(
      "\tServer: max_msg_fds={} max_data_xfer_size={} max_dma_maps={} pgsizes={:#x} "
      "write_multiple{} twin_socket{}\n",
      server.max_msg_fds, format_size(server.max_data_xfer_size), server.max_dma_maps,
      server.pgsizes, server.write_multiple ? '+' : '-', server.twin_socket ? '+' : '-');
  const auto command = reg<std::uint16_t>(device, pci::kCommand);
  out += fmt::format(
      "\tControl: I/O{} Mem{} BusMaster{} DisINTx{}\n", command & pci::command::kIo ? '+' : '-',
      command & pci::command::kMemory ? '+' : '-', command & pci::command::kMaster ? '+' : '-',
      command & pci::command::kIntxDisable ? '+' : '-');
  if (const auto pin = reg<std::uint8_t>(device, pci::kInterruptPin); pin >= 1 && pin <= 4)
    out += fmt::format("\tInterrupt: pin {}\n", static_cast<char>('A' + pin - 1));
  out += fmt::format("\tReset: {}\n", device.resettable ? "DEVICE_RESET" : "none");
  for (const Region& region : device.regions) {
    if (region.size == 0) continue;
    out += fmt::format("\tRegion {}: {} [size={}] {}", region.index, region_name(region.index),
                       format_size(region.size), flags_of(region));
    if (region.index < 6) out += fmt::format(" {}", bar_kind(device, region.index));
    out += '\n';
    for (const auto& area : region.areas)
      out += fmt::format("\t\tMappable: offset={:08x} [size={}]\n", area.offset,
                         format_size(area.size));
    if (!region.trapped_because.empty())
      out += fmt::format("\t\tNot mappable: {}\n", region.trapped_because);
  }
  for (const vfio_user::Irq& irq : device.irqs) {
    if (irq.count == 0) continue;
    out += fmt::format("\tInterrupts {}: {} [count={}] eventfd{} maskable{} automasked{}\n",
                       irq.index, irq_name(irq.index), irq.count, irq.eventfd ? '+' : '-',
                       irq.maskable ? '+' : '-', irq.automasked ? '+' : '-');
  }
  for (const devices::Capability& cap : devices::walk_capabilities(device.config))
    out += fmt::format("\tCapabilities: [{:02x}] {}{}\n", cap.offset, capability_name(cap.id),
                       capability_detail(device, cap));
  for (const devices::Capability& cap : devices::walk_extended_capabilities(device.config))
    out += fmt::format("\tCapabilities: [{:03x}] extended {:#06x}\n", cap.offset, cap.id);
  for (const std::string& fault : report.faults) out += fmt::format("\tFault: {}\n", fault);
  return out;
}

std::string to_json(const ProbeReport& report) {
  using Json = nlohmann::ordered_json;
  const DeviceDescription& device = report.device;
  const PciIdentity id = identity(device);
  Json root;
  root["socket"] = report.socket;
  root["healthy"] = report.faults.empty();
  root["faults"] = report.faults;
  root["capabilities"] = {{"max_msg_fds", report.server.max_msg_fds},
                          {"max_data_xfer_size", report.server.max_data_xfer_size},
                          {"max_dma_maps", report.server.max_dma_maps},
                          {"pgsizes", report.server.pgsizes},
                          {"write_multiple", report.server.write_multiple},
                          {"twin_socket", report.server.twin_socket}};
  root["pci"] = {{"vendor", id.vendor},
                 {"device", id.device},
                 {"subsystem_vendor", id.subsystem_vendor},
                 {"subsystem", id.subsystem},
                 {"class", id.class_code},
                 {"revision", id.revision}};
  root["resettable"] = device.resettable;
  root["round_trips"] = device.round_trips;
  Json regions = Json::array();
  for (const Region& region : device.regions) {
    Json areas = Json::array();
    for (const auto& area : region.areas)
      areas.push_back({{"offset", area.offset}, {"size", area.size}});
    Json entry = {{"index", region.index},       {"name", region_name(region.index)},
                  {"size", region.size},         {"readable", region.readable},
                  {"writable", region.writable}, {"mappable", region.mappable},
                  {"areas", std::move(areas)}};
    if (!region.trapped_because.empty()) entry["trapped_because"] = region.trapped_because;
    regions.push_back(std::move(entry));
  }
  root["regions"] = std::move(regions);
  Json irqs = Json::array();
  for (const vfio_user::Irq& irq : device.irqs)
    irqs.push_back({{"index", irq.index},
                    {"name", irq_name(irq.index)},
                    {"count", irq.count},
                    {"eventfd", irq.eventfd},
                    {"maskable", irq.maskable},
                    {"automasked", irq.automasked}});
  root["interrupts"] = std::move(irqs);
  Json capabilities = Json::array();
  for (const devices::Capability& cap : devices::walk_capabilities(device.config)) {
    Json entry = {{"id", cap.id}, {"name", capability_name(cap.id)}, {"offset", cap.offset}};
    if (cap.id == pci::capability::kMsix) {
      const MsixShape shape = msix_shape(device, cap.offset);
      entry["vectors"] = shape.vectors;
      entry["table"] = {{"bar", shape.table_bar}, {"offset", shape.table_offset}};
      entry["pba"] = {{"bar", shape.pba_bar}, {"offset", shape.pba_offset}};
    }
    capabilities.push_back(std::move(entry));
  }
  root["pci_capabilities"] = std::move(capabilities);
  std::string config;
  for (const std::byte byte : device.config)
    config += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  root["config"] = config;
  return root.dump(2) + "\n";
}

}  // namespace outboard::vmm
