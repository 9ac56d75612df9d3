#include "tools/bench/access_rows.h"

#include <doctest/doctest.h>

#include "tools/bench/access_counts.h"
#include "tools/bench/access_orders.h"
#include "tools/bench/access_report.h"

using namespace outboard::bench;

TEST_CASE("a ratio is taken round by round, against the sum of that round's floors") {
  const Sample subject{30, 60, 90};
  const AccessRow row =
      make_row("k", "n", Sample{30, 60, 90}, subject, "a + b", {{10, 20, 40}, {5, 10, 5}}, 1.5);
  CHECK(row.floor.values()[0] == 15);
  CHECK(row.floor.values()[1] == 30);
  CHECK(row.floor.values()[2] == 45);
  CHECK(row.ratio.size() == 3);
  CHECK(row.ratio.min() == 2);
  CHECK(row.ratio.max() == 2);
}

TEST_CASE("rounds that a floor does not have are left out of the ratio") {
  const AccessRow row = make_row("k", "n", {1, 2, 3}, {1, 2, 3}, "a", {{1, 1}}, {});
  CHECK(row.ratio.size() == 2);
  CHECK(make_row("k", "n", {1}, {1}, "a", {Sample{}}, {}).ratio.empty());
}

TEST_CASE("the median of a round is not moved by one sample that was interrupted") {
  const Rounds rounds = {{1, 2, 1000}, {3, 3, 3}};
  CHECK(pool(rounds, 2).size() == 6);
  CHECK(pool(rounds, 2).max() == 2000);
  CHECK(medians(rounds, 2).values()[0] == 4);
  CHECK(medians(rounds, 2).values()[1] == 6);
}

TEST_CASE("the length of a tick is that between the first and the last moment") {
  TickLength tick;
  CHECK(tick.ns() == 0);
  tick.add(1000, 50'000);
  CHECK(tick.ns() == 0);
  tick.add(2000, 49'000'000);  // a moment in between that came late
  tick.add(1'000'001'000, 500'050'000);
  CHECK(tick.ns() == doctest::Approx(0.5));
}

TEST_CASE("times are told with three digits and the unit that fits") {
  CHECK(time_text(0.25) == "250 ps");
  CHECK(time_text(0.9996) == "1.00 ns");
  CHECK(time_text(12.34) == "12.3 ns");
  CHECK(time_text(999.4) == "999 ns");
  CHECK(time_text(45'678) == "45.7 us");
  CHECK(time_text(7'890'000) == "7.89 ms");
}

TEST_CASE("an order's samples come back, and no more than the shared pages hold") {
  SharedMemory memory(kSharedSize);
  auto& shared = memory.at<Shared>(0);
  shared.failed = 7;
  const Order order{.operation = kPostedWrite, .samples = 3, .inner = 2, .gap = 9, .depth = 4};
  put_order(order, shared);
  CHECK(shared.operation == kPostedWrite);
  CHECK(shared.samples == 3);
  CHECK(shared.inner == 2);
  CHECK(shared.gap == 9);
  CHECK(shared.depth == 4);
  CHECK(failure_of(shared).empty());
  for (std::uint32_t i = 0; i < 4; ++i) {
    memory.at<std::uint32_t>(kTicksOffset + std::size_t{4} * i) = 100 + i;
  }
  CHECK(ticks_of(order, memory.bytes()) == std::vector<double>{100, 101, 102});
  CHECK(ticks_of({.samples = 1u << 30}, memory.bytes()).size() == kMaxSamples);
}

TEST_CASE("what the guest says went wrong is told, even without its end") {
  Shared shared{};
  shared.failed = 1;
  shared.detail = 0x2f;
  for (char& c : shared.reason) c = 'x';
  CHECK(failure_of(shared) == std::string(sizeof shared.reason, 'x') + " 0x2f");
}

TEST_CASE("exits are those for ports and memory, messages those of all commands and devices") {
  const auto counts = parse_counts(R"({
    "exits": {"port": 3, "memory": 40, "halt": 500, "interrupted": 6},
    "devices": [
      {"name": "a", "round_trips": 7,
       "messages": {"VERSION": {"sent": 1, "received": 9},
                    "REGION_READ": {"sent": 20, "received": 0}}},
      {"name": "b", "round_trips": 10,
       "messages": {"REGION_WRITE": {"sent": 300, "received": 0}}}]})");
  REQUIRE(counts.has_value());
  CHECK(*counts == Counts{43, 321, 17});
}

TEST_CASE("a report of another shape is an error, not a count of zero") {
  CHECK_FALSE(parse_counts("").has_value());
  CHECK_FALSE(parse_counts("{").has_value());
  CHECK_FALSE(parse_counts(R"({"exits": {"port": 1}, "devices": []})").has_value());
  CHECK_FALSE(parse_counts(R"({"exits": {"port": 1, "memory": "x"}, "devices": []})").has_value());
  CHECK_FALSE(parse_counts(R"({"exits": {"port": 1, "memory": 2}})").has_value());
}

TEST_CASE(
    "the JSON has every row with its floor, its ratio, its counts and whether it is in time") {
  AccessFigures figures;
  figures.rows.push_back(make_row("fast", "a fast one", {10}, {10}, "floor", {{9}}, 1.15));
  figures.rows.push_back(make_row("slow", "a slow one", {12}, {12}, "floor", {{10}}, 1.15));
  figures.rows.back().counts = Counts{1, 2, 3};
  figures.floors.push_back({"f", "a floor", {5}});
  figures.figures.push_back({"rate", "speed", "x", {0.9, 1.1, 1.2}, 1.0, true});
  figures.figures.push_back({"idle", "idle", "%", {1.5}, 1.0, false});
  const std::string json = access_json({"v", "m", "p"}, figures);
  CHECK(json.find("\"schema\": 1") != std::string::npos);
  const auto slow = json.find("\"slow\"");
  REQUIRE(slow != std::string::npos);
  CHECK(json.substr(0, slow).find("\"met\": true") != std::string::npos);
  CHECK(json.substr(slow, json.find("\"floors\"") - slow).find("\"met\": false") !=
        std::string::npos);
  CHECK(json.find("\"messages\": 2.0") != std::string::npos);
  const auto rate = json.find("\"rate\"");
  const auto idle = json.find("\"idle\"");
  CHECK(json.substr(rate, idle - rate).find("\"met\": true") != std::string::npos);
  CHECK(json.substr(idle).find("\"met\": false") != std::string::npos);

  const std::string table = access_table({"v", "m", "p"}, figures);
  CHECK(table.find("target: at most 1.15 times that, met") != std::string::npos);
  CHECK(table.find("target: at most 1.15 times that, MISSED") != std::string::npos);
  CHECK(table.find("target: at least 1, met") != std::string::npos);
  CHECK(table.find("target: at most 1, MISSED") != std::string::npos);
}
