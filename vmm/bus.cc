#include "vmm/bus.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace outboard::vmm {
namespace {

std::size_t index_of(devices::Space space) {
  return static_cast<std::size_t>(space);
}

}  // namespace

Bus::Bus(std::optional<std::uint64_t> port_window) : port_window_(port_window) {
  for (auto& table : tables_) {
    owned_.push_back(std::make_unique<const Table>());
    table.store(owned_.back().get());
  }
}

Bus::~Bus() = default;

// Puts the fixed mappings in first, then the others, the older first; each takes only what is free.
Bus::Table Bus::flatten(std::span<const Mapping> mappings, devices::Space space) {
  Table table;
  const auto insert = [&table](const Mapping& mapping) {
    const std::uint64_t end_last = mapping.base + (mapping.size - 1);
    std::uint64_t from = mapping.base;
    Table parts;
    bool open = true;  // [from, end_last] is still to be placed
    for (const Entry& taken : table) {
      if (taken.last < from) continue;
      if (taken.first > end_last) break;
      if (taken.first > from) {
        parts.push_back({from, taken.first - 1, mapping.device, mapping.base});
      }
      if (taken.last >= end_last) {
        open = false;
        break;
      }
      from = taken.last + 1;
    }
    if (open) parts.push_back({from, end_last, mapping.device, mapping.base});
    table.insert(table.end(), parts.begin(), parts.end());
    std::ranges::sort(table, {}, &Entry::first);
  };
  for (const auto priority : {devices::Priority::fixed, devices::Priority::bar}) {
    for (const Mapping& mapping : mappings) {
      if (mapping.space == space && mapping.priority == priority) insert(mapping);
    }
  }
  return table;
}

void Bus::publish(devices::Space space) {
  owned_.push_back(std::make_unique<const Table>(flatten(mappings_, space)));
  // Sequentially consistent, as are the reader's announcement and its second look: either the
  // reader sees the new table, or the loop below sees the reader's announcement of the old one.
  tables_[index_of(space)].store(owned_.back().get());
  std::erase_if(owned_, [this](const std::unique_ptr<const Table>& table) {
    for (const auto& current : tables_) {
      if (current.load() == table.get()) return false;
    }
    for (const HazardSlot& slot : slots_) {
      if (slot.table.load() == table.get()) return false;
    }
    return true;
  });
}

devices::MapId Bus::map(devices::Space space, std::uint64_t base, std::uint64_t size,
                        devices::BusDevice& device, devices::Priority priority) {
  if (space == devices::Space::pio && port_window_) {
    space = devices::Space::mmio;
    base += *port_window_;
  }
  const std::lock_guard lock(mutex_);
  const devices::MapId id{next_id_++};
  if (size == 0) return id;
  // A range that would wrap ends with the last address.
  const std::uint64_t room = ~std::uint64_t{0} - base;
  mappings_.push_back({id, space, base, size - 1 > room ? room + 1 : size, &device, priority});
  publish(space);
  return id;
}

void Bus::unmap(devices::MapId id) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(mappings_, id, &Mapping::id);
  if (found == mappings_.end()) return;
  const devices::Space space = found->space;
  mappings_.erase(found);
  publish(space);
}

std::size_t Bus::retired() const {
  const std::lock_guard lock(mutex_);
  return owned_.size() - tables_.size();
}

Bus::HazardSlot& Bus::claim_slot() {
  for (HazardSlot& slot : slots_) {
    if (!slot.taken.exchange(true)) return slot;
  }
  std::fputs("outboard: more bus readers than slots\n", stderr);
  std::abort();
}

Bus::Reader::Reader(Bus& bus) : bus_(bus), slot_(bus.claim_slot()) {}

Bus::Reader::~Reader() {
  slot_.taken.store(false);
}

Bus::Reader::Hit Bus::Reader::find(devices::Space space, std::uint64_t address,
                                   std::uint64_t size) {
  auto& current = bus_.tables_[index_of(space)];
  const Table* table = current.load();
  for (;;) {
    slot_.table.store(table);
    const Table* again = current.load();
    if (again == table) break;
    table = again;
  }
  Hit hit;
  // The first entry that ends at or after the address.
  const auto entry = std::ranges::lower_bound(*table, address, {}, &Entry::last);
  const std::uint64_t last = address + (size - 1);
  if (entry == table->end() || entry->first > last) {
    hit.bytes = size;
  } else if (entry->first > address) {
    hit.bytes = entry->first - address;
  } else {
    hit.device = entry->device;
    hit.offset = address - entry->base;
    hit.bytes = std::min(last, entry->last) - address + 1;
  }
  slot_.table.store(nullptr, std::memory_order_release);
  return hit;
}

void Bus::Reader::read(devices::Space space, std::uint64_t address, std::span<std::byte> data) {
  while (!data.empty()) {
    const Hit hit = find(space, address, data.size());
    const auto part = data.first(hit.bytes);
    if (hit.device != nullptr) {
      hit.device->read(hit.offset, part);
    } else {
      std::ranges::fill(part, std::byte{0xff});
      unhandled_.fetch_add(1, std::memory_order_relaxed);
    }
    data = data.subspan(hit.bytes);
    address += hit.bytes;
  }
}

void Bus::Reader::write(devices::Space space, std::uint64_t address,
                        std::span<const std::byte> data) {
  while (!data.empty()) {
    const Hit hit = find(space, address, data.size());
    if (hit.device != nullptr) {
      hit.device->write(hit.offset, data.first(hit.bytes));
    } else {
      unhandled_.fetch_add(1, std::memory_order_relaxed);
    }
    data = data.subspan(hit.bytes);
    address += hit.bytes;
  }
}

}  // namespace outboard::vmm
