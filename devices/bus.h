// The MMIO and PIO address spaces as devices see them. Declared here, implemented by the VMM.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace outboard::devices {

// Something that answers guest accesses in a mapped range.
// read() and write() run on vCPU threads, several at once. offset counts from the base of the
// mapping; the span is 1 to 8 bytes, in guest (little-endian) order. read() fills the whole span.
// After Bus::unmap() returns, accesses that were looked up before it may still arrive: a BusDevice
// lives until the vCPUs have stopped and answers such late accesses without harm.
class BusDevice {
 public:
  virtual ~BusDevice() = default;
  virtual void read(std::uint64_t offset, std::span<std::byte> data) = 0;
  virtual void write(std::uint64_t offset, std::span<const std::byte> data) = 0;
};

enum class Space { mmio, pio };
enum class Priority { fixed, bar };

// Names one mapping, from map() until unmap(). Never 0.
enum class MapId : std::uint64_t {};

// Look-ups take no lock; map() and unmap() may be called from any thread, also from a vCPU inside
// an access (a guest moves a BAR through a config write). Overlaps are allowed: a fixed mapping
// wins over a BAR, then the older mapping wins.
class Bus {
 public:
  virtual ~Bus() = default;
  virtual MapId map(Space space, std::uint64_t base, std::uint64_t size, BusDevice& device,
                    Priority priority) = 0;
  virtual void unmap(MapId id) = 0;
};

}  // namespace outboard::devices
