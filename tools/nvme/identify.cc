#include "tools/nvme/identify.h"

#include <algorithm>
#include <cstdio>

#include "tools/nvme/bytes.h"

namespace outboard::nvme {
namespace {

// §5.15.2.2 Identify Controller.
void controller(const Identity& identity, std::span<const Namespace> namespaces,
                std::span<std::byte> data) {
  const bool cache = std::any_of(namespaces.begin(), namespaces.end(),
                                 [](const Namespace& ns) { return ns.backend->volatile_cache(); });
  put<u16>(data, 0, identity.vendor);
  put<u16>(data, 2, identity.subsystem_vendor);
  put_text(data, 4, 20, identity.serial);
  put_text(data, 24, 40, identity.model);
  put_text(data, 64, 8, identity.firmware);
  put<u8>(data, 72, 6);                    // RAB: arbitration burst 64
  put<u8>(data, 77, identity.mdts_shift);  // MDTS
  put<u16>(data, 78, kControllerId);       // CNTLID
  put<u32>(data, 80, kVersion14);          // VER
  put<u32>(data, 92, 0);                   // OAES: no optional notice
  put<u32>(data, 96, 0);                   // CTRATT
  put<u8>(data, 111, 1);                   // CNTRLTYPE: I/O controller
  // OACS: Format NVM; Doorbell Buffer Config
  put<u16>(data, 256, static_cast<u16>(1u << 1 | (identity.doorbell_buffer ? 1u << 8 : 0)));
  put<u8>(data, 258, 3);                                           // ACL: 4 aborts
  put<u8>(data, 259, static_cast<u8>(identity.async_events - 1));  // AERL
  put<u8>(data, 260, 0x03);                                        // FRMW: one slot, read-only
  put<u8>(data, 261, 0x06);  // LPA: effects log, offsets into logs
  put<u8>(data, 262, static_cast<u8>(identity.error_entries - 1));  // ELPE
  put<u8>(data, 263, 0);                                            // NPSS: one power state
  put<u16>(data, 266, kWarningTemperature);
  put<u16>(data, 268, kCriticalTemperature);
  put<u8>(data, 512, 0x66);                                  // SQES 64 bytes
  put<u8>(data, 513, 0x44);                                  // CQES 16 bytes
  put<u32>(data, 516, static_cast<u32>(namespaces.size()));  // NN
  put<u16>(
      data, 520,
      1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6);  // ONCS: compare, dataset
                                               // management, write zeroes, save/select, timestamp
  put<u16>(data, 522, 0);                      // FUSES
  put<u8>(data, 524, 0);                       // FNA: formats and erases are per namespace
  put<u8>(data, 525, static_cast<u8>(0x06 | (cache ? 1 : 0)));  // VWC; flush takes NSID ffffffffh
  put<u16>(data, 526, 0);                                       // AWUN: one block
  put<u16>(data, 528, 0);                                       // AWUPF: one block
  put<u32>(data, 536, 1 | 1u << 16 | 1u << 18);  // SGLS: any alignment, bit bucket, excess length
  char nqn[96];
  std::snprintf(nqn, sizeof(nqn), "nqn.2014-08.org.outboard:nvme:%s", identity.serial.c_str());
  std::memcpy(data.subspan(768, 256).data(), nqn, std::char_traits<char>::length(nqn));
  put<u16>(data, 2048, 100);  // PSD0: MP in centiwatts; 1 W
}

// §5.15.2.1 Identify Namespace.
void namespace_data(const Namespace& ns, std::span<std::byte> data) {
  const u32 page_blocks = std::max(1u, 4096u >> ns.block_shift);
  put<u64>(data, 0, ns.blocks());                                                        // NSZE
  put<u64>(data, 8, ns.blocks());                                                        // NCAP
  put<u64>(data, 16, std::min(ns.blocks(), ns.backend->allocated() >> ns.block_shift));  // NUSE
  put<u8>(data, 24, 1u << 4);                             // NSFEAT: NPWG to NOWS valid
  put<u8>(data, 25, kFormats - 1);                        // NLBAF
  put<u8>(data, 26, ns.block_shift == 12 ? 1 : 0);        // FLBAS
  put<u8>(data, 33, 1 | 1u << 3);                         // DLFEAT: zeros; DEAC
  put<u16>(data, 64, static_cast<u16>(page_blocks - 1));  // NPWG
  put<u16>(data, 66, static_cast<u16>(page_blocks - 1));  // NPWA
  put<u16>(data, 68, static_cast<u16>(page_blocks - 1));  // NPDG
  put<u16>(data, 70, static_cast<u16>(page_blocks - 1));  // NPDA
  put<u16>(data, 72, 0);                                  // NOWS
  put<u8>(data, 99, ns.read_only ? 1 : 0);                // NSATTR: write protected
  std::copy_n(reinterpret_cast<const std::byte*>(ns.names.nguid.data()), 16, data.begin() + 104);
  std::copy_n(reinterpret_cast<const std::byte*>(ns.names.eui64.data()), 8, data.begin() + 120);
  put<u32>(data, 128, 1u << 24 | 9u << 16);  // LBAF0: 512, better
  put<u32>(data, 132, 12u << 16);            // LBAF1: 4096, best
}

// §5.15.2.3 Namespace Identification Descriptor list.
void descriptors(const NamespaceNames& names, std::span<std::byte> data) {
  std::size_t at = 0;
  const auto add = [&](u8 type, std::span<const u8> name) {
    put<u8>(data, at, type);
    put<u8>(data, at + 1, static_cast<u8>(name.size()));
    std::memcpy(data.subspan(at + 4, name.size()).data(), name.data(), name.size());
    at += 4 + name.size();
  };
  add(1, names.eui64);
  add(2, names.nguid);
  add(3, names.uuid);
}

}  // namespace

Status identify(const Command& command, const Identity& identity,
                std::span<const Namespace> namespaces, IdentifyData& data) {
  data.fill(std::byte{0});
  const u32 nsid = command.nsid;
  const u16 first_controller = static_cast<u16>(command.dw10 >> 16);
  const u8 command_set = static_cast<u8>(command.dw11 >> 24);
  const bool exists = nsid >= 1 && nsid <= namespaces.size();
  switch (static_cast<Cns>(command.dw10 & 0xff)) {
    case Cns::namespace_data:
    case Cns::allocated_namespace:
      if (nsid == kBroadcastNamespace && (command.dw10 & 0xff) == 0) {
        // Without namespace management: what all namespaces have in common (§5.15.2.1).
        put<u8>(data, 25, kFormats - 1);
        put<u32>(data, 128, 1u << 24 | 9u << 16);
        put<u32>(data, 132, 12u << 16);
        return Status::success;
      }
      if (!exists) return Status::invalid_namespace;
      namespace_data(namespaces[nsid - 1], data);
      return Status::success;
    case Cns::controller:
      controller(identity, namespaces, data);
      return Status::success;
    case Cns::active_namespaces:
    case Cns::allocated_namespaces: {
      if (nsid >= 0xffff'fffe) return Status::invalid_namespace;
      std::size_t at = 0;
      for (u32 id = nsid + 1; id <= namespaces.size() && at < data.size(); ++id, at += 4) {
        put<u32>(data, at, id);
      }
      return Status::success;
    }
    case Cns::namespace_descriptors:
      if (!exists) return Status::invalid_namespace;
      descriptors(namespaces[nsid - 1].names, data);
      return Status::success;
    case Cns::command_set_namespace:
      if (command_set != 0) return Status::invalid_field;
      if (!exists) return Status::invalid_namespace;
      return Status::success;  // nothing beyond the defaults
    case Cns::command_set_controller:
      return command_set == 0 ? Status::success : Status::invalid_field;  // no limits below MDTS
    case Cns::controllers_of_namespace:
      if (!exists) return Status::invalid_field;
      [[fallthrough]];
    case Cns::controllers:
      if (first_controller <= kControllerId) {
        put<u16>(data, 0, 1);
        put<u16>(data, 2, kControllerId);
      }
      return Status::success;
  }
  return Status::invalid_field;
}

}  // namespace outboard::nvme
