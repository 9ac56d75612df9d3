#include "tools/bench/summary.h"

#include <algorithm>

namespace outboard::bench {

std::vector<Row> rows_of(const std::vector<Run>& runs) {
  std::vector<Row> rows;
  for (const Run& run : runs) {
    double before = 0;
    for (const Mark& mark : run.marks) {
      auto same = std::ranges::find_if(
          rows, [&](const Row& row) { return row.key == mark.key && row.device == mark.device; });
      if (same == rows.end())
        same = rows.insert(rows.end(), Row{mark.device, mark.key, mark.name, {}, {}});
      same->at.add(mark.at);
      same->step.add(mark.at - before);
      before = mark.at;
    }
  }
  std::ranges::stable_sort(rows, {}, [](const Row& row) { return row.at.median(); });
  return rows;
}

Sample times_of(const std::vector<Run>& runs, std::string_view key) {
  Sample times;
  for (const Run& run : runs)
    if (const auto at = run.at(key)) times.add(*at);
  return times;
}

const Run* median_run(const std::vector<Run>& runs, std::string_view key) {
  if (runs.empty()) return nullptr;
  std::vector<const Run*> with;
  Sample times;
  for (const Run& run : runs) {
    if (const auto at = run.at(key)) {
      times.add(*at);
      with.push_back(&run);
    }
  }
  const auto index = times.median_index();
  return index ? with[*index] : &runs.front();
}

Sample memory_of(const std::vector<Run>& runs) {
  Sample bytes;
  for (const Run& run : runs)
    if (run.memory) bytes.add(static_cast<double>(run.memory->own()));
  return bytes;
}

}  // namespace outboard::bench
