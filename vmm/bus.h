#pragma once

// The MMIO and PIO buses: which device answers a guest's access. Look-ups run on vCPU threads and
// take no lock; mappings change while the guest runs.
//
// Each space has one immutable table of non-overlapping ranges, published through an atomic
// pointer. A change builds a new table and publishes it. A reader announces the table it looks at
// in a slot of its own (a hazard pointer) for the few instructions of a look-up, never while the
// device is asked; so neither a look-up nor a change ever waits for the other, and a vCPU may
// change mappings in the middle of an access.
//
// Owned by the machine; outlives the devices and the vCPUs.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "devices/bus.h"

namespace outboard::vmm {

class Bus final : public devices::Bus {
 private:
  struct Entry {
    std::uint64_t first = 0;  // address of the first byte
    std::uint64_t last = 0;   // address of the last byte
    devices::BusDevice* device = nullptr;
    std::uint64_t base = 0;  // of the mapping, where the device's offset 0 is
  };
  using Table = std::vector<Entry>;  // sorted by `first`, not overlapping

  struct alignas(64) HazardSlot {
    std::atomic<bool> taken{false};
    std::atomic<const Table*> table{nullptr};
  };

 public:
  // More readers than this cannot exist at once: one a vCPU, and some for tests.
  static constexpr std::size_t kMaxReaders = 80;

  // One thread's way to look things up. Not thread-safe; made and used by one thread at a time.
  class Reader {
   public:
    // Claims a slot of `bus`, which outlives the reader.
    explicit Reader(Bus& bus);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // An access of any size. Where it crosses from one mapping to another, each device gets its
    // own bytes. Where nothing is mapped, reads give all ones and writes are dropped, and the
    // access counts as unhandled.
    void read(devices::Space space, std::uint64_t address, std::span<std::byte> data);
    void write(devices::Space space, std::uint64_t address, std::span<const std::byte> data);

    // Accesses that (in part) no device answered. Any thread.
    [[nodiscard]] std::uint64_t unhandled() const {
      return unhandled_.load(std::memory_order_relaxed);
    }

   private:
    struct Hit {
      devices::BusDevice* device = nullptr;  // null: nothing is mapped there
      std::uint64_t offset = 0;              // into the device
      std::uint64_t bytes = 0;               // of the access that belong to it, at least 1
    };
    Hit find(devices::Space space, std::uint64_t address, std::uint64_t size);

    Bus& bus_;
    HazardSlot& slot_;
    std::atomic<std::uint64_t> unhandled_{0};  // written by the reader's thread only
  };

  // `port_window`: ports are answered at that address and up, as memory, and not as ports.
  explicit Bus(std::optional<std::uint64_t> port_window = {});
  ~Bus() override;

  devices::MapId map(devices::Space space, std::uint64_t base, std::uint64_t size,
                     devices::BusDevice& device, devices::Priority priority) override;
  void unmap(devices::MapId id) override;

  // Old tables that a reader still held when they were replaced; they go with the next change.
  [[nodiscard]] std::size_t retired() const;

 private:
  struct Mapping {
    devices::MapId id{};
    devices::Space space{};
    std::uint64_t base = 0;
    std::uint64_t size = 0;
    devices::BusDevice* device = nullptr;
    devices::Priority priority{};
  };

  static Table flatten(std::span<const Mapping> mappings, devices::Space space);
  void publish(devices::Space space);  // under mutex_
  HazardSlot& claim_slot();

  const std::optional<std::uint64_t> port_window_;
  std::array<std::atomic<const Table*>, 2> tables_;  // by Space; stored under mutex_, read by all
  std::array<HazardSlot, kMaxReaders> slots_;        // one owner each, read by publish()

  mutable std::mutex mutex_;                         // a leaf; taken by map() and unmap() only
  std::vector<Mapping> mappings_;                    // under mutex_: in order of age
  std::vector<std::unique_ptr<const Table>> owned_;  // under mutex_: current and retired tables
  std::uint64_t next_id_ = 1;                        // under mutex_
};

}  // namespace outboard::vmm
