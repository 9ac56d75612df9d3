// The state of a device's connection to its server, and what it went through.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace outboard::devices {

//   ready ⇄ slow           a deadline passed and the connection lives; the next reply ends it
//   ready, slow → down     the connection is dead; for the length of the hold accesses wait
//   down ⇄ reconnecting    an attempt is under way, or has failed
//   reconnecting → ready   the same device is there again
//   any → failed           for good: not back in time, another device, or not to be waited for
enum class LinkState : std::uint8_t { ready, slow, down, reconnecting, failed };

[[nodiscard]] constexpr std::string_view name_of(LinkState state) {
  constexpr std::array<std::string_view, 5> names = {"ready", "slow", "down", "reconnecting",
                                                     "failed"};
  return names.at(static_cast<std::size_t>(state));
}

// Of the last samples of a kind.
struct Spread {
  std::uint64_t count = 0;  // all there have been
  std::chrono::microseconds p50{};
  std::chrono::microseconds p99{};
  std::chrono::microseconds worst{};  // of all
};

// Running totals.
struct LinkCounters {
  LinkState state = LinkState::ready;
  std::uint64_t waiting = 0;  // accesses, now
  std::uint64_t losses = 0;
  std::uint64_t attempts = 0;  // to reconnect
  std::uint64_t resumes = 0;   // reconnects to a server that went on where the other had stopped
  std::uint64_t resets = 0;    // reconnects that reset the device
  std::uint64_t slow_spells = 0;
  std::uint64_t unserved = 0;  // accesses that were all ones, or dropped, for want of a server
  std::uint64_t repeated = 0;  // accesses sent again, posted writes included
  Spread recovery;             // from each loss until accesses went on
  Spread stall;                // of each access that waited for a server to come back
};

}  // namespace outboard::devices
