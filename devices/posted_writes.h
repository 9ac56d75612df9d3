// The last posted write to each offset of a device: what a server that resumes is told again, since
// nobody knows which of them its predecessor had read before it died. An answer to a message that
// was sent after a write shows that the write was read: such a server takes messages in order.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace outboard::devices {

// The first five from any thread at the same time, without a lock; the others while nobody is in
// those.
class PostedWrites final {
 public:
  // Offsets that are remembered; more of them and the device has to be reset.
  static constexpr std::size_t kMost = 256;

  struct Write {
    std::uint32_t region = 0;
    std::uint64_t offset = 0;
    std::uint64_t sequence = 0;
    std::array<std::byte, 8> bytes{};
    std::size_t size = 0;
  };

  // A register's place here; nobody else's to look into.
  struct Slot {
    std::atomic<std::uint64_t> key{0};  // 0: free
    std::atomic<std::uint64_t> value{0};
    std::atomic<std::uint64_t> sequence{0};
    std::atomic<std::uint32_t> size{0};
    std::atomic<std::uint64_t> sent{0};  // the last one: its place among the sends
  };
  // Before a write of 1 to 8 bytes is sent, and after. None: there are too many registers.
  Slot* note(std::uint32_t region, std::uint64_t offset, std::span<const std::byte> bytes);
  void sent(Slot* slot);
  // Before a message that will be answered is sent; what it covers, once it is answered.
  [[nodiscard]] std::uint64_t now() const { return sends_.load(); }
  void answered(std::uint64_t asked);
  // What was noted before the call belongs to a state that the device has left.
  void forget_earlier() {
    forgotten_.store(next_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }

  void clear();
  [[nodiscard]] bool overflowed() const { return used_.load(std::memory_order_relaxed) > kMost; }
  // In the order in which they were made.
  [[nodiscard]] std::vector<Write> list() const;

 private:
  static constexpr std::size_t kSlots = 512;  // a power of two, more than kMost
  static constexpr std::uint64_t kNotSent = ~std::uint64_t{0};

  Slot* find(std::uint64_t key);

  std::array<Slot, kSlots> slots_;
  std::atomic<std::uint64_t> next_{1};
  std::atomic<std::uint64_t> forgotten_{0};  // sequences below it
  std::atomic<std::uint64_t> sends_{0};      // writes that have been sent
  std::atomic<std::uint64_t> covered_{0};    // of them, the first so many were read by the server
  std::atomic<std::size_t> used_{0};
};

}  // namespace outboard::devices
