#include "tools/bench/machine_file.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <optional>
#include <sstream>

#include <fmt/core.h>

#include "vmm/toml.h"

namespace outboard::bench {
namespace {

namespace fs = std::filesystem;

std::string absolute(const std::string& path, const std::string& folder) {
  if (path.empty() || path.front() == '/' || folder.empty()) return path;
  return (fs::path(folder) / path).lexically_normal().string();
}

std::string base_name(const std::string& path) {
  return fs::path(path).filename().string();
}

// The image that `outboard-nvme --file IMAGE …` serves; empty for other back ends.
std::string image_of(const std::vector<std::string>& command) {
  for (std::size_t i = 0; i + 1 < command.size(); ++i)
    if (command[i] == "--file") return command[i + 1];
  return {};
}

}  // namespace

std::optional<std::uint64_t> size_of(const std::string& text) {
  std::uint64_t bytes = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, bytes);
  if (error != std::errc() || rest == text.data() || bytes == 0) return std::nullopt;
  std::string unit(rest, end);
  if (unit.ends_with("iB")) unit.resize(unit.size() - 2);
  if (unit.empty()) return bytes;
  const char* const kUnits = "KMGT";
  const char* const found = unit.size() == 1 ? std::strchr(kUnits, unit[0]) : nullptr;
  if (found == nullptr) return std::nullopt;
  const int shift = 10 * (static_cast<int>(found - kUnits) + 1);
  if (bytes > (~std::uint64_t{0} >> shift)) return std::nullopt;
  return bytes << shift;
}

Result<MachineFile> MachineFile::read(const std::string& path) {
  std::error_code code;
  if (!fs::exists(path, code))
    return fail(ExitStatus::missing, fmt::format("there is no configuration file {}", path));
  toml::parse_result parsed = toml::parse_file(path);
  if (!parsed) {
    const auto& at = parsed.error().source().begin;
    return fail(ExitStatus::usage, fmt::format("{}:{}:{}: {}", path, at.line, at.column,
                                               std::string(parsed.error().description())));
  }
  MachineFile file;
  const toml::table& root = parsed.table();
  std::ostringstream text;
  text << root;
  file.source_ = std::move(text).str();
  file.folder_ = fs::absolute(path, code).parent_path().string();
  file.kernel_ = absolute(root["kernel"]["path"].value_or(std::string()), file.folder_);
  file.initrd_ = absolute(root["kernel"]["initrd"].value_or(std::string()), file.folder_);
  file.command_line_ = root["kernel"]["cmdline"].value_or(std::string());
  file.memory_ = root["machine"]["memory"].value_or(std::string("512M"));
  file.vcpus_ = static_cast<int>(root["machine"]["vcpus"].value_or(std::int64_t{1}));
  if (const toml::array* devices = root["device"].as_array(); devices != nullptr) {
    for (const toml::node& node : *devices) {
      const toml::table* table = node.as_table();
      if (table == nullptr) continue;
      Device device;
      device.name = (*table)["name"].value_or(fmt::format("device{}", file.devices_.size()));
      device.socket = (*table)["socket"].value_or(std::string());
      if (const toml::array* words = (*table)["server"].as_array(); words != nullptr)
        for (const toml::node& word : *words) device.server.push_back(word.value_or(std::string()));
      file.devices_.push_back(std::move(device));
    }
  }
  return file;
}

MachineFile MachineFile::make(std::size_t disks) {
  MachineFile file;
  file.memory_ = "512M";
  for (std::size_t i = 0; i < disks; ++i) {
    file.devices_.push_back({fmt::format("disk{}", i), {"outboard-nvme", "--memory", "64M"}, {}});
    file.source_ += fmt::format("[[device]]\nname = \"disk{}\"\n", i);
  }
  return file;
}

Result<Workload> MachineFile::workload(const std::vector<std::string>& images,
                                       const std::string& outboard_nvme) const {
  Workload work;
  work.kernel = kernel_;
  work.initrd = initrd_;
  work.command_line = command_line_;
  work.vcpus = vcpus_;
  const auto memory = size_of(memory_);
  if (!memory) return fail(ExitStatus::usage, fmt::format("'{}' is no memory size", memory_));
  work.memory = *memory;
  std::size_t next = 0;
  for (const Device& device : devices_) {
    std::vector<std::string> command;
    if (next < images.size()) {
      // The image is the same for every run: nothing is written to it.
      command = {outboard_nvme, "--file", images[next++], "--read-only"};
    } else if (!device.server.empty()) {
      command = device.server;
      if (base_name(command.front()) != "outboard-nvme") {
        return fail(ExitStatus::usage,
                    fmt::format("device '{}': its server is {}, and the clock that every VMM is "
                                "measured by is outboard-nvme's; give --disk IMAGE instead",
                                device.name, command.front()));
      }
      command.front() = outboard_nvme;
      for (std::size_t i = 0; i < command.size();) {
        const bool socket = command[i] == "--socket" && i + 1 < command.size();
        if (!socket && command[i].find("{socket}") == std::string::npos) {
          ++i;
          continue;
        }
        command.erase(command.begin() + static_cast<std::ptrdiff_t>(i),
                      command.begin() + static_cast<std::ptrdiff_t>(socket ? i + 2 : i + 1));
      }
      for (std::size_t i = 0; i + 1 < command.size(); ++i)
        if (command[i] == "--file") command[i + 1] = absolute(command[i + 1], folder_);
      if (!image_of(command).empty() && std::ranges::find(command, "--read-only") == command.end())
        command.emplace_back("--read-only");
    } else {
      return fail(ExitStatus::usage,
                  fmt::format("device '{}' is at the socket {}: give --disk IMAGE (or --disk "
                              "memory), so that each run has a fresh server",
                              device.name, device.socket));
    }
    if (command.size() > 2 && command[1] == "--file" && command[2] == "memory")
      command = {outboard_nvme, "--memory", "64M"};
    work.images.push_back(image_of(command));
    work.disks.push_back(std::move(command));
  }
  if (next < images.size()) {
    return fail(ExitStatus::usage, fmt::format("{} disks are given with --disk, and the machine "
                                               "has {} devices",
                                               images.size(), devices_.size()));
  }
  return work;
}

std::string MachineFile::text(const Workload& workload,
                              const std::vector<std::string>& sockets) const {
  toml::parse_result parsed = toml::parse(source_);
  toml::table root = parsed ? std::move(parsed).table() : toml::table();
  const auto section = [&root](const char* name) -> toml::table& {
    if (root[name].as_table() == nullptr) root.insert_or_assign(name, toml::table());
    return *root[name].as_table();
  };
  toml::table& kernel = section("kernel");
  kernel.insert_or_assign("path", workload.kernel);
  if (!workload.initrd.empty()) kernel.insert_or_assign("initrd", workload.initrd);
  kernel.insert_or_assign("cmdline", workload.command_line);
  kernel.insert_or_assign("keep_unpacked", workload.keep_unpacked);
  toml::table& machine = section("machine");
  machine.insert_or_assign("memory", fmt::format("{}M", workload.memory >> 20));
  machine.insert_or_assign("vcpus", std::int64_t{workload.vcpus});
  root.erase("console");  // the console is this program's to read
  if (toml::array* devices = root["device"].as_array(); devices != nullptr) {
    for (std::size_t i = 0; i < devices->size() && i < sockets.size(); ++i) {
      toml::table* device = (*devices)[i].as_table();
      if (device == nullptr) continue;
      device->erase("server");
      device->erase("affinity");
      device->insert_or_assign("socket", sockets[i]);
    }
  }
  std::ostringstream out;
  out << root << '\n';
  return std::move(out).str();
}

}  // namespace outboard::bench
