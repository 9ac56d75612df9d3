#pragma once

// What `outboard-bench access` finds, as plain data.

#include <optional>
#include <string>
#include <vector>

#include "tools/bench/access_counts.h"
#include "tools/bench/sample.h"
#include "vfio_user/result.h"

namespace outboard::bench {

// Samples in the rounds in which they were taken, so that a subject can be set against what the
// floor took in the same round.
using Rounds = std::vector<std::vector<double>>;

// One kind of access, ns an operation.
struct AccessRow {
  std::string key;   // "trapped_read"
  std::string name;  // "trapped BAR read"
  Sample ns;
  std::string floor_name;        // "bare exit + socket ping-pong"
  Sample floor;                  // one a round: the sum of its parts' medians
  Sample ratio;                  // one a round
  std::optional<double> target;  // for the median of `ratio`: at most
  std::optional<Counts> counts;  // an operation
};

// A floor by itself.
struct FloorRow {
  std::string key;
  std::string name;
  Sample ns;
};

// Something that is one number a round or a repetition and has no floor.
struct FigureRow {
  std::string key;
  std::string name;
  std::string unit;
  Sample values;
  std::optional<double> target;  // for the median
  bool at_least = false;         // the target is a lower limit
};

struct AccessFigures {
  std::vector<AccessRow> rows;
  std::vector<FloorRow> floors;
  std::vector<FigureRow> figures;  // paired ratios, IOPS, idle CPU
};

// `scale` turns what `rounds` holds into ns an operation.
[[nodiscard]] Sample pool(const Rounds& rounds, double scale = 1);
// The medians of the rounds.
[[nodiscard]] Sample medians(const Rounds& rounds, double scale = 1);

// `floors` are added up round by round; both as pool() and medians() of the same rounds give them.
[[nodiscard]] AccessRow make_row(std::string key, std::string name, const Sample& all,
                                 const Sample& by_round, std::string floor_name,
                                 const std::vector<Sample>& floors, std::optional<double> target);

// What a measurement ends with when its progress() says so.
[[nodiscard]] tl::unexpected<vfio_user::Error> interrupted();

}  // namespace outboard::bench
