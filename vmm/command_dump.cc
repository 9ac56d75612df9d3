#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>

#include <fmt/core.h>

#include "boot/fdt.h"
#include "vmm/arch.h"
#include "vmm/commands.h"
#include "vmm/kvm.h"
#include "vmm/log.h"

namespace outboard::vmm {
namespace {

namespace fs = std::filesystem;

bool write_file(const fs::path& path, std::span<const std::byte> bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  bool good = file != nullptr;
  if (good) {
    good = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
    good = std::fclose(file) == 0 && good;
  }
  if (good)
    std::printf("%s\n", path.c_str());
  else
    log::error("{}: {}", path.string(), std::strerror(errno));
  return good;
}

boot::FdtDescription describe(const MachineConfig& config, const arch::MemoryLayout& layout) {
  boot::FdtDescription fdt;
  fdt.cpu_compatible = "cpu-x86";
  for (std::uint32_t i = 0; i < config.vcpus; ++i) fdt.cpu_ids.push_back(i);
  fdt.memory = layout.map;
  fdt.command_line = config.command_line;
  boot::FdtDescription::Pci pci;
  pci.ecam_base = layout.ecam_base;
  pci.mmio32 = {layout.mmio32.base, layout.mmio32.size};
  pci.mmio64 = {layout.mmio64.base, layout.mmio64.size};
  fdt.pci = pci;
  return fdt;
}

}  // namespace

int dump_tables(const DumpCommand& command) {
  const auto config = load_or_explain(command.config);
  if (!config) return to_int(ExitStatus::configuration);
  std::error_code code;
  fs::create_directories(command.out, code);
  if (code) {
    log::error("{}: {}; name a folder that can be made", command.out, code.message());
    return to_int(ExitStatus::usage);
  }
  const fs::path out = command.out;

  if (command.kind == DumpKind::cmdline) {
    const std::string line = config->command_line + "\n";
    return write_file(out / "cmdline", std::as_bytes(std::span(line)))
               ? to_int(ExitStatus::powered_off)
               : to_int(ExitStatus::internal_error);
  }

  const auto layout = layout_or_explain(*config);
  if (!layout) return to_int(layout.error());
  if (command.kind == DumpKind::fdt) {
    const auto blob = boot::build_fdt(describe(*config, *layout));
    if (!blob) {
      log::error("{}", blob.error().message);
      return to_int(ExitStatus::internal_error);
    }
    return write_file(out / "outboard.dtb", *blob) ? to_int(ExitStatus::powered_off)
                                                   : to_int(ExitStatus::internal_error);
  }
  const arch::FirmwareTables firmware = arch::firmware_tables(
      {.vcpus = config->vcpus, .devices = static_cast<std::uint32_t>(config->devices.size())},
      *layout);
  for (const boot::NamedTable& table : firmware.tables) {
    const auto bytes = std::span(firmware.bytes).subspan(table.offset, table.size);
    if (!write_file(out / (table.name + ".aml"), bytes)) return to_int(ExitStatus::internal_error);
  }
  return to_int(ExitStatus::powered_off);
}

}  // namespace outboard::vmm
