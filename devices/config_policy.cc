#include "devices/config_policy.h"

#include <algorithm>
#include <array>
#include <bit>

#include "devices/aligned_pieces.h"
#include "devices/capability_list.h"
#include "devices/pci_registers.h"

namespace outboard::devices {
namespace {

constexpr std::uint16_t kHiddenExtended[] = {
    pci::extended::kAts,
    pci::extended::kSriov,
    pci::extended::kMrIov,
    pci::extended::kPageRequest,
    pci::extended::kPasid,
    pci::extended::kResizableBar,
    pci::extended::kVfResizableBar,
};

// Lengths of capabilities without a length of their own
constexpr std::uint32_t kPciXSize = 8;
constexpr std::uint32_t kBridgeSubsystemSize = 8;
constexpr std::uint32_t kExpressVersion1Size = 20;
constexpr std::uint8_t kBridgeSubsystem = 0x0d;

// AER registers the device changes by itself, PCIe 4.0 §7.8.4: status and header log
struct AerStatus {
  std::uint32_t offset;
  std::uint32_t size;
};
constexpr AerStatus kAerStatus[] = {{0x04, 4}, {0x10, 4}, {0x1c, 16}};
constexpr std::uint32_t kAerWritable[] = {0x08, 0x0c, 0x14};  // masks and severity

// Builds one plan; lives for one call of plan_config().
class Planner {
 public:
  explicit Planner(const ConfigRequest& request) : request_(request) {}

  Result<ConfigPlan> run() {
    if (auto refused = refuse()) return failure(*refused);
    const bool extended = request_.config.size() >= ConfigSpace::kExtended;
    plan_.shadow = ConfigSpace(extended ? ConfigSpace::kExtended : ConfigSpace::kConventional);
    plan_.shadow.set_bytes(
        0, request_.config.first(std::min(request_.config.size(), plan_.shadow.size())));
    plan_.at_server.assign(plan_.shadow.size(), false);
    const std::size_t device_specific_end =
        std::min<std::size_t>(ConfigSpace::kConventional, request_.config.size());
    for (std::size_t i = pci::kHeaderEnd; i < device_specific_end; ++i) plan_.at_server[i] = true;
    header();
    conventional();
    if (extended) extended_capabilities();
    return std::move(plan_);
  }

 private:
  std::optional<std::string> refuse() const {
    const auto config = request_.config;
    if (config.size() < pci::kHeaderEnd) {
      return "its config space has " + std::to_string(config.size()) +
             " bytes, fewer than the 64 of a PCI header";
    }
    if (load_le(config.first(4)) == 0xffffffff || load_le(config.first(2)) == 0xffff) {
      return "its config space reads all ones: there is no device behind the socket";
    }
    const auto type = std::to_integer<std::uint8_t>(config[pci::kHeaderType]) & 0x7f;
    if (type != 0) return "its header type is " + std::to_string(type) + ", no endpoint's";
    return std::nullopt;
  }

  void header() {
    ConfigSpace& shadow = plan_.shadow;
    const IdOverrides& ids = request_.ids;
    if (ids.vendor_id) shadow.set(pci::kVendorId, 2, *ids.vendor_id);
    if (ids.device_id) shadow.set(pci::kDeviceId, 2, *ids.device_id);
    if (ids.subsystem_vendor_id) shadow.set(pci::kSubsystemVendorId, 2, *ids.subsystem_vendor_id);
    if (ids.subsystem_id) shadow.set(pci::kSubsystemId, 2, *ids.subsystem_id);
    if (ids.revision_id) shadow.set(pci::kRevisionId, 1, *ids.revision_id);
    if (ids.class_code) {
      shadow.set(pci::kClassCode, 1, *ids.class_code & 0xff);
      shadow.set(pci::kClassCode + 1, 2, *ids.class_code >> 8);
    }
    shadow.set(pci::kCommand, 2, 0);
    shadow.set(pci::kStatus, 2, shadow.read(pci::kStatus, 2) & pci::status::kKept);
    shadow.set(pci::kCacheLineSize, 4, 0);  // and latency timer, header type, BIST
    shadow.set(pci::kCardbusCis, 4, 0);
    shadow.set(pci::kInterruptLine, 1, 0);
    plan_.intx = request_.interrupt_pin && usable(vfio_user::kIrqIntx) > 0 &&
                 shadow.read(pci::kInterruptPin, 1) != 0;
    shadow.set(pci::kInterruptPin, 1, plan_.intx ? 1 : 0);
    shadow.allow_write(pci::kCommand, 2, pci::command::kForwarded | pci::command::kParity);
    shadow.allow_write(pci::kCacheLineSize, 1, 0xff);
    shadow.allow_write(pci::kInterruptLine, 1, 0xff);
  }

  // Vectors of an interrupt index that can reach a guest.
  std::uint32_t usable(std::uint32_t index) const {
    if (index >= request_.irqs.size() || !request_.irqs[index].eventfd) return 0;
    return request_.irqs[index].count;
  }

  void keep_local(std::uint32_t at, std::uint32_t size) {
    for (std::size_t i = at; i < std::size_t{at} + size && i < plan_.at_server.size(); ++i) {
      plan_.at_server[i] = false;
    }
  }

  void send_to_server(std::uint32_t at, std::uint32_t size) {
    for (std::size_t i = at; i < std::size_t{at} + size && i < plan_.at_server.size(); ++i) {
      plan_.at_server[i] = true;
    }
  }

  void remark(std::string text) { plan_.remarks.push_back(std::move(text)); }

  void conventional() {
    if (plan_.shadow.size() < ConfigSpace::kConventional) return;
    std::vector<Capability> kept;
    for (const Capability& entry : walk_capabilities(plan_.shadow.bytes())) {
      keep_local(entry.offset, 2);
      if (show(entry)) kept.push_back(entry);
    }
    for (const Capability& entry : kept) keep_local(entry.offset, 2);
    link_capabilities(plan_.shadow, kept);
  }

  bool fits(const Capability& entry, std::uint32_t size) {
    if (entry.offset + size <= ConfigSpace::kConventional) return true;
    remark("a capability at offset " + std::to_string(entry.offset) +
           " reaches beyond the config space and is hidden");
    return false;
  }

  bool show(const Capability& entry) {
    switch (entry.id) {
      case pci::capability::kPowerManagement:
        return plan_.power_offset == 0 && fits(entry, pci::pm::kSize) && show_power(entry.offset);
      case pci::capability::kMsi:
        return show_msi(entry);
      case pci::capability::kMsix:
        return show_msix(entry);
      case pci::capability::kExpress:
        return plan_.express_offset == 0 && fits(entry, kExpressVersion1Size) &&
               show_express(entry.offset);
      case pci::capability::kPciX:
        keep_local(entry.offset, kPciXSize);
        return true;
      case kBridgeSubsystem:
        keep_local(entry.offset, kBridgeSubsystemSize);
        return true;
      case pci::capability::kVendor:
        keep_local(entry.offset, 3);  // id, next and length; the body is the device's
        return true;
      case pci::capability::kEnhancedAllocation:
        remark("its enhanced allocation capability is hidden: BARs are placed by this machine");
        return false;
      default:
        return true;
    }
  }

  bool show_power(std::uint32_t at) {
    keep_local(at, pci::pm::kSize);
    plan_.power_offset = at;
    plan_.shadow.set(at + pci::pm::kControl, 2,
                     plan_.shadow.read(at + pci::pm::kControl, 2) & pci::pm::kNoSoftReset);
    plan_.shadow.allow_write(at + pci::pm::kControl, 2, pci::pm::kStateMask);
    return true;
  }

  bool show_msi(const Capability& entry) {
    ConfigSpace& shadow = plan_.shadow;
    const std::uint32_t at = entry.offset;
    const std::uint32_t control = shadow.read(at + pci::msi::kControl, 2);
    MsiShape shape{.offset = at};
    shape.wide = (control & pci::msi::k64Bit) != 0;
    shape.maskable = (control & pci::msi::kPerVectorMask) != 0;
    const std::uint32_t end =
        shape.maskable ? shape.pending_register() + 4 : shape.data_register() + 2;
    if (plan_.msi || !fits(entry, end - at)) return false;
    keep_local(at, end - at);
    const std::uint32_t offered = 1U << std::min((control & pci::msi::kCapableMask) >> 1, 5U);
    const std::uint32_t vectors =
        std::bit_floor(std::min({offered, usable(vfio_user::kIrqMsi), request_.max_vectors}));
    if (vectors == 0) {
      remark("its MSI capability is hidden: the server offers no MSI vector with an eventfd");
      return false;
    }
    shape.vectors = vectors;
    const auto log2 = static_cast<std::uint32_t>(std::countr_zero(vectors));
    shadow.set(at + pci::msi::kControl, 2,
               (control & (pci::msi::k64Bit | pci::msi::kPerVectorMask)) | (log2 << 1));
    for (std::uint32_t reg = at + pci::msi::kAddress; reg < end; reg += 2) shadow.set(reg, 2, 0);
    shadow.allow_write(at + pci::msi::kControl, 2, pci::msi::kEnable | pci::msi::kEnabledMask);
    shadow.allow_write(at + pci::msi::kAddress, 4, 0xfffffffc);
    if (shape.wide) shadow.allow_write(at + pci::msi::kAddressHigh, 4, 0xffffffff);
    shadow.allow_write(shape.data_register(), 2, 0xffff);
    if (shape.maskable) {
      shadow.allow_write(shape.mask_register(), 4,
                         static_cast<std::uint32_t>((std::uint64_t{1} << vectors) - 1));
    }
    plan_.msi = shape;
    return true;
  }

  bool show_msix(const Capability& entry) {
    ConfigSpace& shadow = plan_.shadow;
    const std::uint32_t at = entry.offset;
    if (plan_.msix || !fits(entry, pci::msix::kSize)) return false;
    keep_local(at, pci::msix::kSize);
    const std::uint32_t control = shadow.read(at + pci::msix::kControl, 2);
    const std::uint32_t table = shadow.read(at + pci::msix::kTable, 4);
    const std::uint32_t pba = shadow.read(at + pci::msix::kPba, 4);
    MsixShape shape;
    shape.vectors = std::min(
        {(control & pci::msix::kSizeMask) + 1, usable(vfio_user::kIrqMsix), request_.max_vectors});
    shape.table_region = table & pci::msix::kBirMask;
    shape.table_offset = table & ~pci::msix::kBirMask;
    shape.pba_region = pba & pci::msix::kBirMask;
    shape.pba_offset = pba & ~pci::msix::kBirMask;
    const auto hide = [&](const std::string& why) {
      remark("its MSI-X capability is hidden: " + why);
      return false;
    };
    if (shape.vectors == 0) return hide("the server offers no MSI-X vector with an eventfd");
    if (!holds(shape.table_region, shape.table_offset, shape.table_size())) {
      return hide("the table does not lie in a memory BAR");
    }
    if (!holds(shape.pba_region, shape.pba_offset, shape.pba_size())) {
      return hide("the pending bit array does not lie in a memory BAR");
    }
    if (shape.table_region == shape.pba_region &&
        shape.table_offset < shape.pba_offset + shape.pba_size() &&
        shape.pba_offset < shape.table_offset + shape.table_size()) {
      return hide("table and pending bit array overlap");
    }
    shadow.set(at + pci::msix::kControl, 2, shape.vectors - 1);
    shadow.allow_write(at + pci::msix::kControl, 2, pci::msix::kEnable | pci::msix::kFunctionMask);
    plan_.msix_offset = at;
    plan_.msix = shape;
    return true;
  }

  bool holds(std::uint32_t region, std::uint64_t offset, std::uint64_t size) const {
    if (region > 5 || region >= request_.regions.size()) return false;
    const auto& bar = request_.bars->info(region);
    return bar && bar->kind != BarInfo::Kind::io &&
           AddressWindow{0, request_.regions[region].size}.contains(offset, size);
  }

  bool show_express(std::uint32_t at) {
    ConfigSpace& shadow = plan_.shadow;
    const bool version2 = (shadow.read(at + pci::express::kFlags, 2) & 0xf) >= 2;
    std::uint32_t size = version2 ? pci::express::kSize : kExpressVersion1Size;
    size = std::min<std::uint32_t>(size, ConfigSpace::kConventional - at);
    keep_local(at, size);
    plan_.express_offset = at;
    plan_.function_reset = (shadow.read(at + pci::express::kDeviceCapabilities, 4) &
                            pci::express::kFunctionResetCapable) != 0;
    std::uint32_t control = pci::express::kDeviceControlBits;
    if (plan_.function_reset) control |= pci::express::kFunctionReset;
    shadow.set(at + pci::express::kDeviceControl, 2,
               shadow.read(at + pci::express::kDeviceControl, 2) & ~pci::express::kFunctionReset);
    shadow.allow_write(at + pci::express::kDeviceControl, 2, control);
    send_to_server(at + pci::express::kDeviceStatus, 2);
    shadow.allow_write(at + pci::express::kLinkControl, 2, pci::express::kLinkControlBits);
    if (size >= pci::express::kSize) {
      shadow.allow_write(at + pci::express::kDeviceControl2, 2, 0xffff);
      shadow.allow_write(at + pci::express::kLinkControl2, 2, 0xffff);
    }
    return true;
  }

  // Everything here is local and read only except what is named.
  void extended_capabilities() {
    std::vector<Capability> kept;
    for (const Capability& entry : walk_extended_capabilities(plan_.shadow.bytes())) {
      if (std::ranges::find(kHiddenExtended, entry.id) != std::end(kHiddenExtended)) {
        remark("its extended capability " + std::to_string(entry.id) +
               " is hidden: this machine has no use for it");
        continue;
      }
      kept.push_back(entry);
      if (entry.id == pci::extended::kAer) {
        for (const AerStatus& part : kAerStatus) {
          send_to_server(entry.offset + part.offset, part.size);
        }
        for (const std::uint32_t reg : kAerWritable) {
          plan_.shadow.allow_write(entry.offset + reg, 4, 0xffffffff);
        }
      } else if (entry.id == pci::extended::kVendor || entry.id == pci::extended::kDvsec) {
        const std::uint32_t length = plan_.shadow.read(entry.offset + 4, 4) >> 20;
        if (length > 8) send_to_server(entry.offset + 8, length - 8);
      }
    }
    // Whatever lengths the server claims, headers are read here: hidden ones stay hidden.
    for (const Capability& entry : walk_extended_capabilities(plan_.shadow.bytes())) {
      keep_local(entry.offset, 4);
    }
    link_extended_capabilities(plan_.shadow, kept);
  }

  const ConfigRequest& request_;
  ConfigPlan plan_;
};

}  // namespace

Result<ConfigPlan> plan_config(const ConfigRequest& request) {
  return Planner(request).run();
}

}  // namespace outboard::devices
