// The configuration file: any text, with overrides from the command line.
#include <string>
#include <vector>

#include "tests/fuzz/input.h"
#include "vmm/config.h"

using namespace outboard;
using fuzz::require;

namespace {

void check(const vmm::MachineConfig& config) {
  require(config.vcpus >= 1 && config.vcpus <= vmm::kMaxVcpus);
  require(config.memory >= vmm::kMinMemory);
  require(config.memory % static_cast<std::uint64_t>(config.page_size) == 0);
  require(config.vcpu_affinity.size() <= config.vcpus);
  require(config.power_button_deadline.count() >= 0);
  for (const vmm::DeviceConfig& device : config.devices) {
    require(!device.name.empty());
    require(device.socket.empty() != device.server.empty());
    require(device.timeouts.access.count() > 0);
    require(!device.class_code || *device.class_code <= 0xff'ffff);
  }
}

}  // namespace

// The text; then, behind a byte 0x01 each, overrides "path=value".
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::string> parts{{}};
  for (const std::uint8_t byte : std::span(data, size)) {
    if (byte == 1 && parts.size() < 8) {
      parts.emplace_back();
    } else {
      parts.back().push_back(static_cast<char>(byte));
    }
  }
  std::vector<vmm::Override> overrides;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::size_t equals = parts[i].find('=');
    if (equals == std::string::npos) continue;
    overrides.push_back({parts[i].substr(0, equals), parts[i].substr(equals + 1), i % 2 == 0});
  }
  const auto config = vmm::parse_config(parts[0], "fuzz.toml", "/", overrides);
  if (config) {
    check(*config);
  } else {
    require(!config.error().lines.empty());
    for (const std::string& line : config.error().lines) require(!line.empty());
  }
  return 0;
}
