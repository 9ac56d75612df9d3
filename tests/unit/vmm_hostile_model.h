// What a guest must see of its machine, whatever it does: an account of its own.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <utility>

#include "tests/unit/vmm_hostile_board.h"

namespace outboard::hostile {

// What the guest must see, from the specification: PCI 3.0 §6.2.5 and the rules of overlap (RAM,
// the machine's own, then who was there first).
class Model {
 public:
  struct Bar {
    std::uint32_t region;
    std::uint32_t reg;
    std::uint64_t size;      // as decoded: a power of two
    std::uint64_t contents;  // bytes that exist
    bool io, wide, rom;
    std::uint64_t placed = 0;
    std::uint64_t address = 0;
    bool enabled = true;                // of a ROM
    std::optional<std::uint64_t> at{};  // where it answers
    std::uint64_t age = 0;
  };

  explicit Model(const Board& board) {
    for (Bar& bar : bars_) {
      for (const BarInfo& info : board.function->bars()) {
        if (info.region == bar.region) bar.placed = bar.address = info.address;
      }
      REQUIRE(bar.placed != 0);
    }
    for (std::uint32_t i = 0; i < kVectors; ++i) table_[4 * i + 3] = 1;
  }

  std::array<Bar, 4>& bars() { return bars_; }

  std::uint32_t bar_register(std::uint32_t reg) const {
    for (const Bar& bar : bars_) {
      if (bar.wide && reg == bar.reg + 4) return static_cast<std::uint32_t>(bar.address >> 32);
      if (reg != bar.reg) continue;
      const auto low = static_cast<std::uint32_t>(bar.address);
      return low | (bar.io ? 1 : bar.wide ? 4 : bar.rom && bar.enabled ? 1 : 0);
    }
    return 0;
  }

  void config_write(std::uint32_t reg, std::size_t size, std::uint32_t value) {
    if (reg % size != 0 || size > 4) return;
    const bool is_bar = (reg >= 0x10 && reg < 0x28) || (reg >= 0x30 && reg < 0x34);
    if (is_bar) {
      const std::uint32_t base = reg & ~3u;
      const std::uint32_t shift = 8 * (reg % 4);
      const auto mask = static_cast<std::uint32_t>(ones(size) << shift);
      write_bar(base, (bar_register(base) & ~mask) | ((value << shift) & mask));
    } else if (reg == 4) {
      command_ = value & 3;
    } else if (express_control(reg, size, value)) {
      command_ = 0;  // a function level reset
      table_reset();
    }
    settle();
  }

  void machine_reset() {
    command_ = 0;
    for (Bar& bar : bars_) bar.address = bar.placed;
    bars_[3].enabled = false;
    table_reset();
    settle();
  }

  // Nothing: the model does not say.
  std::optional<std::uint64_t> access(const Access& access) {
    if (access.space == Space::mmio) {
      if (access.address < kRamEnd) return 0;
      if (shared_slot() && in_shared(access.address)) {
        return shared(access.address - *bars_[0].at - kShared, access);
      }
      if (access.address >= kEcam && access.address < kEcam + PciHost::kEcamSize) return {};
    } else if (access.address + access.size > kPorts &&
               access.address < kPorts + PciHost::kConfigPortsSize) {
      return {};
    }
    Bar* owner = nullptr;
    for (Bar& bar : bars_) {
      if (!bar.at || bar.io != (access.space == Space::pio)) continue;
      if (access.address < *bar.at || access.address - *bar.at >= bar.size) continue;
      if (owner == nullptr || bar.age < owner->age) owner = &bar;
    }
    if (owner == nullptr) return ones(access.size);
    return device_access(*owner, access.address - *owner->at, access);
  }

 private:
  void write_bar(std::uint32_t reg, std::uint32_t value) {
    for (Bar& bar : bars_) {
      if (bar.wide && reg == bar.reg + 4) {
        bar.address = (std::uint64_t{value} << 32 | (bar.address & 0xffff'ffff));
      } else if (reg == bar.reg) {
        if (bar.rom) bar.enabled = (value & 1) != 0;
        bar.address = (bar.wide ? bar.address >> 32 << 32 : 0) | value;
      } else {
        continue;
      }
      bar.address &= ~(bar.size - 1);
    }
  }

  static bool express_control(std::uint32_t reg, std::size_t size, std::uint32_t value) {
    if (reg == 0x68 && size >= 2) return (value & 0x8000) != 0;
    return reg == 0x69 && (value & 0x80) != 0;
  }

  void settle() {
    for (Bar& bar : bars_) {
      std::optional<std::uint64_t> wanted;
      const std::uint64_t last = bar.wide ? ~0ULL : bar.io ? 0xffff : 0xffff'ffff;
      if ((command_ & (bar.io ? 1 : 2)) != 0 && bar.address != 0 && bar.enabled &&
          bar.address < last - (bar.size - 1)) {
        wanted = bar.address;
      }
      if (wanted == bar.at) continue;
      bar.at = wanted;
      bar.age = ++ages_;
    }
  }

  // The page of BAR 0 is a memslot unless it would lie over something.
  bool shared_slot() const {
    if (!bars_[0].at) return false;
    const std::uint64_t at = *bars_[0].at + kShared;
    return at >= kRamEnd && !(at >= kEcam && at < kEcam + PciHost::kEcamSize) &&
           !(at >= kOwn && at < kOwnEnd);
  }
  bool in_shared(std::uint64_t address) const { return address - (*bars_[0].at + kShared) < kPage; }

  std::uint64_t shared(std::uint64_t offset, const Access& access) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < access.size; ++i) {
      std::uint8_t& byte = page_[offset + i];
      if (access.value) byte = static_cast<std::uint8_t>(*access.value >> (8 * i));
      value |= std::uint64_t{byte} << (8 * i);
    }
    return value;
  }

  std::optional<std::uint64_t> device_access(const Bar& bar, std::uint64_t offset,
                                             const Access& access) {
    if (offset + access.size > bar.contents) return ones(access.size);
    if (bar.region == 0 && offset >= kTable) return overlay(offset, access);
    if (bar.rom && access.value) return *access.value;
    std::uint64_t& word = words_[{bar.region, offset % 0x100}];
    if (access.value) word = *access.value & ones(access.size);
    return word & ones(access.size);
  }

  std::optional<std::uint64_t> overlay(std::uint64_t offset, const Access& access) {
    if (offset < kTable + 16 * kVectors) {
      const std::size_t first = (offset - kTable) / 4;
      if (access.size < 4) return access.value ? *access.value : ones(access.size);
      for (std::size_t i = 0; i < access.size / 4 && access.value; ++i) {
        const auto word = static_cast<std::uint32_t>(*access.value >> (32 * i));
        const std::size_t column = (first + i) % 4;
        table_[first + i] = column == 0 ? word & ~3u : column == 3 ? word & 1 : word;
      }
      std::uint64_t value = table_[first];
      if (access.size == 8) value |= std::uint64_t{table_[first + 1]} << 32;
      return value;
    }
    if (offset >= kPba && offset < kPba + 8) return {};
    std::uint64_t& word = words_[{0, offset % 0x100}];
    if (access.value) word = *access.value & ones(access.size);
    return word & ones(access.size);
  }

  void table_reset() {
    table_.fill(0);
    for (std::uint32_t i = 0; i < kVectors; ++i) table_[4 * i + 3] = 1;
  }

  std::array<Bar, 4> bars_{Bar{0, 0x10, 0x4000, 0x4000, false, true, false},
                           Bar{2, 0x18, 0x20, 0x20, true, false, false},
                           Bar{3, 0x1c, 0x4000, 0x3000, false, false, false},
                           Bar{6, 0x30, 0x800, 0x800, false, false, true, 0, 0, false, {}, 0}};
  std::uint32_t command_ = 0;
  std::uint64_t ages_ = 0;
  std::array<std::uint8_t, kPage> page_{};
  std::array<std::uint32_t, 4 * kVectors> table_{};
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint64_t> words_;
};

}  // namespace outboard::hostile
