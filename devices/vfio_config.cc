#include "devices/vfio_config.h"

#include <algorithm>
#include <array>
#include <string>

#include "devices/aligned_pieces.h"
#include "devices/pci_registers.h"

namespace outboard::devices {
namespace {

std::string hex(std::uint32_t value) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  do {
    out.insert(out.begin(), kDigits[value & 0xf]);
    value >>= 4;
  } while (value != 0);
  return "0x" + out;
}

}  // namespace

VfioConfig::VfioConfig(const ConfigPlan& plan, std::span<const std::byte> raw, RemoteConfig& remote,
                       AccessCounters& counters, GuestLog& log)
    : initial_(plan.shadow),
      at_server_(plan.at_server),
      shadow_(plan.shadow),
      held_(raw.begin(), raw.end()),
      express_status_(plan.express_offset != 0 ? plan.express_offset + pci::express::kDeviceStatus
                                               : 0),
      remote_(remote),
      counters_(counters),
      log_(log) {}

bool VfioConfig::at_server(std::uint32_t reg) const {
  return reg < at_server_.size() && at_server_[reg];
}

std::uint32_t VfioConfig::read(std::uint32_t reg, std::uint32_t size) {
  std::array<std::byte, 4> bytes{};
  const std::span<std::byte> data = std::span(bytes).first(std::min<std::size_t>(size, 4));
  store_le(data, shadow_.read(reg, size));
  for (std::uint32_t at = 0; at < data.size();) {
    if (!at_server(reg + at)) {
      ++at;
      continue;
    }
    std::uint32_t end = at + 1;
    while (end < data.size() && at_server(reg + end)) ++end;
    for_aligned_pieces(reg + at, data.subspan(at, end - at),
                       [&](std::uint64_t from, std::span<std::byte> piece) {
                         std::array<std::byte, 4> fresh{};
                         const auto into = std::span(fresh).first(piece.size());
                         count(counters_.config_forwards);
                         if (remote_.read(static_cast<std::uint32_t>(from), into)) {
                           std::ranges::copy(into, piece.begin());
                         } else {
                           count(counters_.config_errors);
                         }
                       });
    at = end;
  }
  return static_cast<std::uint32_t>(load_le(data));
}

void VfioConfig::write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  shadow_.write(reg, size, value);
  std::array<std::byte, 4> bytes{};
  const std::span<std::byte> data = std::span(bytes).first(std::min<std::size_t>(size, 4));
  store_le(data, value);
  for (std::uint32_t at = 0; at < data.size();) {
    if (!at_server(reg + at)) {
      ++at;
      continue;
    }
    std::uint32_t end = at + 1;
    while (end < data.size() && at_server(reg + end)) ++end;
    for_aligned_pieces(reg + at, std::span<const std::byte>(data).subspan(at, end - at),
                       [&](std::uint64_t to, std::span<const std::byte> piece) {
                         count(counters_.config_forwards);
                         remember(static_cast<std::uint32_t>(to), piece);
                         if (auto done = remote_.write(static_cast<std::uint32_t>(to), piece);
                             !done && !done.error().lost) {
                           count(counters_.config_errors);
                           log_.line(Severity::info,
                                     "the server refused a write of config register " +
                                         hex(static_cast<std::uint32_t>(to)) + ": " +
                                         done.error().message);
                         }
                       });
    at = end;
  }
}

void VfioConfig::forward(std::uint32_t reg, std::uint16_t value) {
  if (held(reg) != value) send(reg, value);
}

void VfioConfig::send(std::uint32_t reg, std::uint16_t value) {
  std::array<std::byte, 2> bytes{};
  store_le(bytes, value);
  count(counters_.config_forwards);
  if (auto done = remote_.write(reg, bytes); !done) {
    if (done.error().lost) return;
    count(counters_.config_errors);
    log_.line(Severity::info, "the server refused " + hex(value) + " for config register " +
                                  hex(reg) + ": " + done.error().message);
    return;
  }
  if (reg + 2 <= held_.size()) std::ranges::copy(bytes, held_.begin() + reg);
}

std::uint16_t VfioConfig::held(std::uint32_t reg) const {
  if (reg + 2 > held_.size()) return 0;
  return static_cast<std::uint16_t>(load_le(std::span(held_).subspan(reg, 2)));
}

void VfioConfig::refresh_held(std::span<const std::byte> raw) {
  std::ranges::copy(raw.first(std::min(raw.size(), held_.size())), held_.begin());
}

void VfioConfig::reset_shadow() {
  shadow_ = initial_;
  forget_writes();
}

void VfioConfig::remember(std::uint32_t reg, std::span<const std::byte> bytes) {
  const auto size = static_cast<std::uint32_t>(bytes.size());
  const bool clears =
      express_status_ != 0 && reg < express_status_ + 2 && express_status_ < reg + size;
  if (reg >= ConfigSpace::kConventional || clears) return;
  written_[reg].assign(bytes.begin(), bytes.end());
}

void VfioConfig::rewrite() {
  for (const auto& [reg, bytes] : written_) {
    count(counters_.config_forwards);
    if (auto done = remote_.write(reg, bytes); !done && !done.error().lost) {
      count(counters_.config_errors);
    }
  }
}

}  // namespace outboard::devices
