#pragma once

// Why vCPUs come back to user space, and how often. Plain data.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace outboard::vmm {

enum class ExitKind : std::uint8_t {
  port,          // an I/O port
  memory,        // memory that no slot holds
  interrupted,   // a kick, or another signal
  pages_gone,    // host pages behind a guest address are gone
  system_event,  // the guest asked its firmware for something
  shutdown,      // a triple fault
  failure,       // KVM cannot go on
  count,
};
inline constexpr std::size_t kExitKinds = static_cast<std::size_t>(ExitKind::count);

// Stable, for programs: "port", "memory", ...
[[nodiscard]] std::string_view key_of(ExitKind kind);

// Exits of one vCPU, or of several together, since the start.
struct ExitCounters {
  std::array<std::uint64_t, kExitKinds> by_kind{};
  std::uint64_t unanswered = 0;  // accesses that no device answered

  [[nodiscard]] std::uint64_t of(ExitKind kind) const {
    return by_kind[static_cast<std::size_t>(kind)];
  }
  ExitCounters& operator+=(const ExitCounters& other);
};

}  // namespace outboard::vmm
