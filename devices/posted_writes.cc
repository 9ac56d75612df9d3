#include "devices/posted_writes.h"

#include <algorithm>
#include <cstring>

namespace outboard::devices {
namespace {

constexpr std::uint64_t kRegionBits = 4;
constexpr std::uint64_t kRegionMask = (1U << kRegionBits) - 1;

}  // namespace

PostedWrites::Slot* PostedWrites::find(std::uint64_t key) {
  std::size_t at = (key * 0x9e3779b97f4a7c15U) >> 55;
  for (std::size_t tries = 0; tries < kSlots; ++tries, at = (at + 1) % kSlots) {
    Slot& slot = slots_[at];
    std::uint64_t held = slot.key.load(std::memory_order_relaxed);
    if (held == key) return &slot;
    if (held != 0) continue;
    if (used_.load(std::memory_order_relaxed) > kMost) return nullptr;
    if (slot.key.compare_exchange_strong(held, key, std::memory_order_relaxed)) {
      used_.fetch_add(1, std::memory_order_relaxed);
      return &slot;
    }
    if (held == key) return &slot;
  }
  return nullptr;
}

// Two vCPUs that write the same register at the same time have no order anyway. The one that has
// sent last says when; the other one, should it not be sent at all, fails and is made again by its
// vCPU.
PostedWrites::Slot* PostedWrites::note(std::uint32_t region, std::uint64_t offset,
                                       std::span<const std::byte> bytes) {
  Slot* const slot = find((offset << kRegionBits) | (region + 1));
  if (slot == nullptr) return nullptr;
  slot->sent.store(kNotSent);
  std::uint64_t value = 0;
  const std::size_t size = std::min(bytes.size(), sizeof value);
  std::memcpy(&value, bytes.data(), size);
  slot->value.store(value, std::memory_order_relaxed);
  slot->size.store(static_cast<std::uint32_t>(size), std::memory_order_relaxed);
  slot->sequence.store(next_.fetch_add(1, std::memory_order_relaxed), std::memory_order_relaxed);
  return slot;
}

void PostedWrites::sent(Slot* slot) {
  if (slot != nullptr) slot->sent.store(sends_.fetch_add(1) + 1);
}

void PostedWrites::answered(std::uint64_t asked) {
  std::uint64_t covered = covered_.load();
  while (covered < asked && !covered_.compare_exchange_weak(covered, asked)) {
  }
}

void PostedWrites::clear() {
  for (Slot& slot : slots_) {
    slot.key.store(0, std::memory_order_relaxed);
    slot.sequence.store(0, std::memory_order_relaxed);
    slot.sent.store(0);
  }
  used_.store(0, std::memory_order_relaxed);
  forgotten_.store(0, std::memory_order_relaxed);
}

std::vector<PostedWrites::Write> PostedWrites::list() const {
  std::vector<Write> out;
  const std::uint64_t from = forgotten_.load(std::memory_order_relaxed);
  const std::uint64_t covered = covered_.load();
  for (const Slot& slot : slots_) {
    const std::uint64_t key = slot.key.load(std::memory_order_relaxed);
    const std::uint64_t sequence = slot.sequence.load(std::memory_order_relaxed);
    if (key == 0 || sequence == 0 || sequence < from || slot.sent.load() <= covered) continue;
    Write write;
    write.region = static_cast<std::uint32_t>((key & kRegionMask) - 1);
    write.offset = key >> kRegionBits;
    write.sequence = sequence;
    write.size = slot.size.load(std::memory_order_relaxed);
    const std::uint64_t value = slot.value.load(std::memory_order_relaxed);
    std::memcpy(write.bytes.data(), &value, sizeof value);
    out.push_back(write);
  }
  std::ranges::sort(out, {}, &Write::sequence);
  return out;
}

}  // namespace outboard::devices
