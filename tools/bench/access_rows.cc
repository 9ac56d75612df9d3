#include "tools/bench/access_rows.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace outboard::bench {
namespace {

Sample scaled(const std::vector<double>& values, double scale) {
  Sample sample;
  for (const double value : values) sample.add(value * scale);
  return sample;
}

}  // namespace

Sample pool(const Rounds& rounds, double scale) {
  Sample all;
  for (const auto& round : rounds) {
    for (const double value : round) all.add(value * scale);
  }
  return all;
}

Sample medians(const Rounds& rounds, double scale) {
  Sample result;
  for (const auto& round : rounds) result.add(scaled(round, scale).median());
  return result;
}

tl::unexpected<vfio_user::Error> interrupted() {
  return tl::unexpected(
      vfio_user::Error{vfio_user::Error::Kind::closed, EINTR, "the measurement was interrupted"});
}

AccessRow make_row(std::string key, std::string name, const Sample& all, const Sample& by_round,
                   std::string floor_name, const std::vector<Sample>& floors,
                   std::optional<double> target) {
  AccessRow row{std::move(key), std::move(name), all, std::move(floor_name), {}, {}, target, {}};
  std::size_t rounds = by_round.size();
  for (const Sample& floor : floors) rounds = std::min(rounds, floor.size());
  for (std::size_t i = 0; i < rounds; ++i) {
    double sum = 0;
    for (const Sample& floor : floors) sum += floor.values()[i];
    row.floor.add(sum);
  }
  row.ratio = pair_ratios(by_round, row.floor);
  return row;
}

}  // namespace outboard::bench
