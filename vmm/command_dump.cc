#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/core.h>

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

Result<std::vector<arch::NamedFile>> tables(DumpKind kind, const arch::GuestDescription& guest,
                                            const arch::MemoryLayout& layout) {
  if (kind == DumpKind::acpi) return arch::acpi_tables(guest, layout);
  auto tree = arch::device_tree(guest, layout);
  if (!tree) return tl::unexpected(tree.error());
  return std::vector{std::move(*tree)};
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
  std::error_code no_size;
  arch::GuestDescription guest{.vcpus = config->vcpus,
                               .devices = static_cast<std::uint32_t>(config->devices.size()),
                               .command_line = config->command_line};
  if (command.kind == DumpKind::fdt && !config->initrd.empty()) {
    guest.initrd_size = fs::file_size(config->initrd, no_size);
    if (no_size) {
      log::error("initrd {}: {}; name an existing file", config->initrd, no_size.message());
      return to_int(ExitStatus::boot_image);
    }
  }
  const auto files = tables(command.kind, guest, *layout);
  if (!files) {
    log::error("{}", files.error().message);
    return to_int(files.error().status);
  }
  for (const arch::NamedFile& file : *files) {
    if (!write_file(out / file.name, file.bytes)) return to_int(ExitStatus::internal_error);
  }
  return to_int(ExitStatus::powered_off);
}

}  // namespace outboard::vmm
