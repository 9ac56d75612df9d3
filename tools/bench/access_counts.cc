#include "tools/bench/access_counts.h"

#include <charconv>
#include <optional>
#include <sstream>
#include <string_view>

namespace outboard::bench {
namespace {

// The number in front of `what`; none when it is not there.
std::optional<double> number_before(std::string_view text, std::string_view what) {
  const auto end = text.find(what);
  if (end == std::string_view::npos || end == 0) return std::nullopt;
  const auto blank = text.find_last_not_of("0123456789", end - 1);
  const auto begin = blank == std::string_view::npos ? 0 : blank + 1;
  std::uint64_t number = 0;
  const auto [rest, error] = std::from_chars(text.data() + begin, text.data() + end, number);
  if (error != std::errc{} || rest != text.data() + end) return std::nullopt;
  return static_cast<double>(number);
}

// "3 REGION_READ, 2 REGION_WRITE" or "none": the sum.
double sum_of(std::string_view list) {
  double sum = 0;
  while (!list.empty()) {
    const auto comma = list.find(", ");
    const std::string_view item = list.substr(0, comma);
    sum += number_before(item, " ").value_or(0);
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 2);
  }
  return sum;
}

}  // namespace

vfio_user::Result<Counts> parse_counts(const std::string& statistics) {
  Counts counts;
  bool exits = false;
  bool devices = false;
  std::istringstream lines(statistics);
  for (std::string line; std::getline(lines, line);) {
    if (const auto at = line.find("exits: "); at != std::string::npos) {
      const std::string_view text = std::string_view(line).substr(at + 7);
      const auto ports = number_before(text, " port");
      const auto memory = number_before(text, " memory");
      if (!ports || !memory) continue;
      counts.exits += *ports + *memory;
      exits = true;
      continue;
    }
    const auto sent = line.find("': sent ");
    if (sent == std::string::npos) continue;
    const std::string_view text = std::string_view(line).substr(sent + 8);
    const auto posted = number_before(text, " posted");
    const auto replies = number_before(text, " round trips");
    if (!posted || !replies) continue;
    counts.messages += sum_of(text.substr(0, text.find(';'))) + *posted;
    counts.replies += *replies;
    devices = true;
  }
  if (exits && devices) return counts;
  return tl::unexpected(vfio_user::Error{
      vfio_user::Error::Kind::invalid, 0,
      "outboard printed no counters that this program knows; are both of the same version?"});
}

}  // namespace outboard::bench
