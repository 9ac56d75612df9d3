#include "vmm/marks.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <utility>

#include <fmt/core.h>

namespace outboard::vmm {
namespace {

using devices::DeviceMark;

struct Names {
  std::string_view key, name;
};

constexpr std::array<Names, static_cast<std::size_t>(Mark::count)> kMachine = {{
    {"process_start", "process start"},
    {"program_loaded", "program loaded"},
    {"configuration_read", "configuration read"},
    {"kvm_ready", "KVM ready"},
    {"memory_ready", "memory ready"},
    {"kernel_loaded", "kernel loaded"},
    {"devices_attached", "devices attached"},
    {"first_run", "first KVM_RUN"},
    {"first_exit", "first exit to user space"},
    {"first_console_byte", "first console byte"},
    {"guest_user_space", "guest user space"},
    {"power_off", "power-off"},
}};

constexpr std::array<Names, static_cast<std::size_t>(DeviceMark::count)> kDevice = {{
    {"connected", "connected"},
    {"negotiated", "negotiated"},
    {"mapped", "guest memory mapped"},
    {"described", "described"},
    {"config_access", "first config access"},
    {"bar_access", "first trapped BAR access"},
    {"memory_decoding", "memory decoding on"},
    {"msix_enabled", "MSI-X on"},
    {"nvme_enabled", "NVMe enabled (CC.EN)"},
    {"nvme_ready", "NVMe ready (CSTS.RDY)"},
    {"io_vector", "first I/O vector connected"},
    {"first_interrupt", "first interrupt"},
    {"first_io_completion", "first I/O completion"},
}};

constexpr std::uint64_t kHour = 3'600'000'000'000U;

}  // namespace

std::string_view mark_name(Mark mark) {
  return kMachine.at(static_cast<std::size_t>(mark)).name;
}
std::string_view mark_name(DeviceMark mark) {
  return kDevice.at(static_cast<std::size_t>(mark)).name;
}
std::string_view mark_key(Mark mark) {
  return kMachine.at(static_cast<std::size_t>(mark)).key;
}
std::string_view mark_key(DeviceMark mark) {
  return kDevice.at(static_cast<std::size_t>(mark)).key;
}

devices::DeviceMarks& Marks::add_device(std::string name) {
  Device& device = devices_.emplace_back();
  device.name = std::move(name);
  return device.marks;
}

std::vector<Stamp> Marks::list() const {
  std::vector<Stamp> all;
  for (std::size_t i = 0; i < kMachine.size(); ++i) {
    if (const auto time = times_.at(static_cast<Mark>(i)))
      all.push_back({"", kMachine[i].key, kMachine[i].name, *time});
  }
  for (const Device& device : devices_) {
    for (std::size_t i = 0; i < kDevice.size(); ++i) {
      if (const auto time = device.marks.at(static_cast<DeviceMark>(i)))
        all.push_back({device.name, kDevice[i].key, kDevice[i].name, *time});
    }
  }
  std::ranges::stable_sort(all, {}, &Stamp::at);
  return all;
}

std::string Marks::report() const {
  std::string lines;
  const std::uint64_t start = at(Mark::process_start).value_or(0);
  for (const Stamp& stamp : list()) {
    const double milliseconds =
        static_cast<double>(static_cast<std::int64_t>(stamp.at - start)) / 1e6;
    lines += fmt::format("{:>10.3f} ms  {}{}{}\n", milliseconds, stamp.device,
                         stamp.device.empty() ? "" : ": ", stamp.name);
  }
  return lines;
}

std::optional<std::uint64_t> parent_stamp(const char* text, std::uint64_t now) {
  if (text == nullptr) return std::nullopt;
  std::uint64_t time = 0;
  const char* const end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, time);
  if (error != std::errc() || rest != end || time == 0) return std::nullopt;
  if (time > now || now - time > kHour) return std::nullopt;
  return time;
}

}  // namespace outboard::vmm
