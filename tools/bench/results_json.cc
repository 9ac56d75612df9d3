#include "tools/bench/results_json.h"

#include <nlohmann/json.hpp>

namespace outboard::bench {
namespace {

using nlohmann::ordered_json;

ordered_json figures(const Sample& sample) {
  return {{"n", sample.size()},       {"min", sample.min()}, {"p50", sample.median()},
          {"p90", sample.p90()},      {"p99", sample.p99()}, {"max", sample.max()},
          {"values", sample.values()}};
}

ordered_json json_of(const Side& side, std::string_view last_key) {
  ordered_json marks = ordered_json::array();
  for (const Row& row : rows_of(side.runs)) {
    ordered_json mark;
    if (!row.device.empty()) mark["device"] = row.device;
    mark["key"] = row.key;
    mark["name"] = row.name;
    mark["at_ns"] = figures(row.at);
    mark["step_ns"] = figures(row.step);
    marks.push_back(std::move(mark));
  }
  ordered_json median = ordered_json::array();
  ordered_json counts = ordered_json::object();
  if (const Run* run = median_run(side.runs, last_key); run != nullptr) {
    for (const Mark& mark : run->marks)
      median.push_back({{"device", mark.device}, {"key", mark.key}, {"ns", mark.at}});
    for (const auto& [name, count] : run->counts) counts[name] = count;
  }
  ordered_json out = {{"name", side.name},
                      {"version", side.version},
                      {"device", side.device},
                      {"command", side.command},
                      {"runs", side.runs.size()},
                      {"marks", std::move(marks)},
                      {"median_run", std::move(median)},
                      {"median_run_counts", std::move(counts)}};
  if (const Sample memory = memory_of(side.runs); !memory.empty())
    out["memory_bytes"] = figures(memory);
  return out;
}

}  // namespace

std::string results_json(const Results& results) {
  ordered_json duels = ordered_json::array();
  for (const Duel& duel : results.duels) {
    duels.push_back({{"compared", duel.what},
                     {"key", duel.key},
                     {"ours_ns", figures(duel.ours_times())},
                     {"theirs_ns", figures(duel.theirs_times())},
                     {"ratio", figures(duel.ratios())},
                     {"theirs", json_of(duel.theirs, duel.key)}});
  }
  const HostFacts& host = results.host;
  ordered_json root = {{"schema", 1},
                       {"outboard_bench", OUTBOARD_VERSION},
                       {"command", results.command},
                       {"title", results.title},
                       {"host",
                        {{"cpu_model", host.cpu_model},
                         {"cpus", host.cpus},
                         {"placement", host.placement},
                         {"kernel", host.kernel},
                         {"page_size", host.page_size},
                         {"kvm", host.kvm},
                         {"virtual", !host.hypervisor.empty()},
                         {"load", host.load}}},
                       {"last_key", results.last_key},
                       {"ours", json_of(results.ours, results.last_key)},
                       {"pairs", std::move(duels)},
                       {"notes", results.notes}};
  if (!results.load_floor.empty()) root["load_floor_ns"] = figures(results.load_floor);
  return root.dump(1) + "\n";
}

}  // namespace outboard::bench
