#include "vmm/units.h"

#include <array>
#include <charconv>
#include <limits>

#include <fmt/core.h>

namespace outboard::vmm {
namespace {

struct Unit {
  std::string_view suffix;
  std::uint64_t factor;
};

// The number that `text` begins with; `text` keeps what follows it.
std::optional<std::uint64_t> take_number(std::string_view& text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

template <std::size_t N>
std::optional<std::uint64_t> parse(std::string_view text, const std::array<Unit, N>& units) {
  const auto number = take_number(text);
  if (!number) return std::nullopt;
  for (const Unit& unit : units) {
    if (text != unit.suffix) continue;
    if (*number > std::numeric_limits<std::uint64_t>::max() / unit.factor) return std::nullopt;
    return *number * unit.factor;
  }
  return std::nullopt;
}

constexpr std::uint64_t kK = 1024;
constexpr std::array kSizes = {
    Unit{"", 1},
    Unit{"K", kK},
    Unit{"KB", kK},
    Unit{"KiB", kK},
    Unit{"M", kK* kK},
    Unit{"MB", kK* kK},
    Unit{"MiB", kK* kK},
    Unit{"G", kK* kK* kK},
    Unit{"GB", kK* kK* kK},
    Unit{"GiB", kK* kK* kK},
    Unit{"T", kK* kK* kK* kK},
    Unit{"TB", kK* kK* kK* kK},
    Unit{"TiB", kK* kK* kK* kK},
};
constexpr std::array kTimes = {
    Unit{"ms", 1},
    Unit{"s", 1000},
    Unit{"m", 60 * 1000},
    Unit{"h", 60 * 60 * 1000},
};

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
  return parse(text, kSizes);
}

std::optional<std::uint64_t> parse_address(std::string_view text) {
  if (!text.starts_with("0x")) return parse_size(text);
  text.remove_prefix(2);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, 16);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const auto count = parse(text, kTimes);
  // A day-long margin below the clock's range keeps every later addition exact.
  if (!count || *count > std::uint64_t{1} << 40) return std::nullopt;
  return std::chrono::milliseconds(static_cast<std::int64_t>(*count));
}

std::string format_size(std::uint64_t bytes) {
  constexpr std::array kLetters = {'T', 'G', 'M', 'K'};
  std::uint64_t unit = kK * kK * kK * kK;
  for (const char letter : kLetters) {
    if (bytes >= unit && bytes % unit == 0) return fmt::format("{}{}", bytes / unit, letter);
    unit /= kK;
  }
  return fmt::format("{}", bytes);
}

std::string format_duration(std::chrono::milliseconds time) {
  if (time.count() % 1000 != 0) return fmt::format("{}ms", time.count());
  return fmt::format("{}s", time.count() / 1000);
}

}  // namespace outboard::vmm
