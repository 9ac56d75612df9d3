#include "tools/bench/access_report.h"

#include <array>
#include <cmath>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace outboard::bench {
namespace {

using Json = nlohmann::ordered_json;

std::string three_digits(double value) {
  if (value >= 99.95) return fmt::format("{:.0f}", value);
  if (value >= 9.995) return fmt::format("{:.1f}", value);
  return fmt::format("{:.2f}", value);
}

// Whole numbers plainly: most counts are.
std::string count_text(double count) {
  const double nearest = std::round(count);
  if (std::abs(count - nearest) < 1e-9) return fmt::format("{:.0f}", nearest);
  return fmt::format("{:.3f}", count);
}

std::string verdict(bool met) {
  return met ? "met" : "MISSED";
}

std::string number_text(double value, const std::string& unit) {
  if (unit == "reads/s") return fmt::format("{:.0f}", value);
  return three_digits(value);
}

Json percentiles(const Sample& sample) {
  return {{"samples", sample.size()},
          {"p50", sample.median()},
          {"p90", sample.p90()},
          {"p99", sample.p99()},
          {"min", sample.min()}};
}

bool met(const FigureRow& row) {
  const double median = row.values.median();
  return row.at_least ? median >= *row.target : median <= *row.target;
}

std::string row_lines(const AccessFigures& figures) {
  std::string text =
      fmt::format("{:<52} {:>9} {:>9} {:>9} {:>9} {:>6}  {:>6} {:>8} {:>7}\n", "", "p50", "p90",
                  "p99", "floor", "ratio", "exits", "messages", "replies");
  for (const AccessRow& row : figures.rows) {
    text += fmt::format("{:<52} {:>9} {:>9} {:>9} {:>9} {:>6.2f}", row.name,
                        time_text(row.ns.median()), time_text(row.ns.p90()),
                        time_text(row.ns.p99()), time_text(row.floor.median()), row.ratio.median());
    if (row.counts) {
      text += fmt::format("  {:>6} {:>8} {:>7}", count_text(row.counts->exits),
                          count_text(row.counts->messages), count_text(row.counts->replies));
    }
    text += fmt::format("\n    floor: {}", row.floor_name);
    if (row.target) {
      text += fmt::format("; target: at most {} times that, {}", *row.target,
                          verdict(row.ratio.median() <= *row.target));
    }
    text += "\n";
  }
  return text;
}

}  // namespace

std::string time_text(double ns) {
  static constexpr std::array<std::pair<double, const char*>, 4> kUnits = {
      {{1e-3, "ps"}, {1, "ns"}, {1e3, "us"}, {1e6, "ms"}}};
  auto unit = kUnits.front();
  for (const auto& next : kUnits) {
    if (ns >= 0.9995 * next.first) unit = next;
  }
  return three_digits(ns / unit.first) + " " + unit.second;
}

std::string access_table(const AccessSetting& setting, const AccessFigures& figures) {
  std::string text = fmt::format("{}\n{}; {}\n\nAn operation\n", setting.machine, setting.version,
                                 setting.placement);
  text += row_lines(figures);
  text += fmt::format("\n{:<52} {:>9} {:>9} {:>9}\n", "The host itself", "p50", "p90", "p99");
  for (const FloorRow& row : figures.floors) {
    text += fmt::format("{:<52} {:>9} {:>9} {:>9}\n", row.name, time_text(row.ns.median()),
                        time_text(row.ns.p90()), time_text(row.ns.p99()));
  }
  if (figures.figures.empty()) return text;
  text += fmt::format("\n{:<84} {:>9} {:>9} {:>9}\n", "A round or a repetition", "median", "lowest",
                      "highest");
  for (const FigureRow& row : figures.figures) {
    text += fmt::format("{:<84} {:>9} {:>9} {:>9}", fmt::format("{} ({})", row.name, row.unit),
                        number_text(row.values.median(), row.unit),
                        number_text(row.values.min(), row.unit),
                        number_text(row.values.max(), row.unit));
    if (row.target) {
      text += fmt::format("  target: {} {}, {}", row.at_least ? "at least" : "at most", *row.target,
                          verdict(met(row)));
    }
    text += "\n";
  }
  return text;
}

std::string access_json(const AccessSetting& setting, const AccessFigures& figures) {
  Json rows = Json::array();
  for (const AccessRow& row : figures.rows) {
    Json json = {{"key", row.key},
                 {"name", row.name},
                 {"ns", percentiles(row.ns)},
                 {"floor", {{"name", row.floor_name}, {"ns", percentiles(row.floor)}}},
                 {"ratio", percentiles(row.ratio)}};
    if (row.target) {
      json["target"] = {{"at_most", *row.target}, {"met", row.ratio.median() <= *row.target}};
    }
    if (row.counts) {
      json["per_operation"] = {{"exits", row.counts->exits},
                               {"messages", row.counts->messages},
                               {"replies", row.counts->replies}};
    }
    rows.push_back(std::move(json));
  }
  Json floors = Json::array();
  for (const FloorRow& row : figures.floors) {
    floors.push_back({{"key", row.key}, {"name", row.name}, {"ns", percentiles(row.ns)}});
  }
  Json others = Json::array();
  for (const FigureRow& row : figures.figures) {
    Json json = {{"key", row.key},
                 {"name", row.name},
                 {"unit", row.unit},
                 {"median", row.values.median()},
                 {"values", row.values.values()}};
    if (row.target) {
      json["target"] = {{row.at_least ? "at_least" : "at_most", *row.target}, {"met", met(row)}};
    }
    others.push_back(std::move(json));
  }
  return Json{{"schema", 1},
              {"command", "access"},
              {"version", setting.version},
              {"machine", setting.machine},
              {"placement", setting.placement},
              {"rows", std::move(rows)},
              {"floors", std::move(floors)},
              {"figures", std::move(others)}}
             .dump(2) +
         "\n";
}

}  // namespace outboard::bench
