#include <doctest/doctest.h>

#include "tools/bench/pair_order.h"
#include "tools/bench/sample.h"
#include "tools/bench/summary.h"
#include "tools/bench/units.h"

using namespace outboard::bench;

TEST_CASE("percentiles are linear between the nearest ranks, and of any order of values") {
  const Sample sample{4, 1, 3, 2};
  CHECK(sample.min() == 1);
  CHECK(sample.max() == 4);
  CHECK(sample.median() == doctest::Approx(2.5));
  CHECK(sample.p90() == doctest::Approx(3.7));
  CHECK(sample.p99() == doctest::Approx(3.97));
  CHECK(sample.percentile(-5) == 1);
  CHECK(sample.percentile(200) == 4);
}

TEST_CASE("one value is every percentile, and no value is none of them") {
  const Sample one{7};
  CHECK(one.median() == 7);
  CHECK(one.p99() == 7);
  CHECK(one.median_index() == 0);
  const Sample none;
  CHECK(none.median() == 0);
  CHECK_FALSE(none.median_index().has_value());
}

TEST_CASE("the median run is a run that was made: the one nearest to the median") {
  CHECK(Sample{10, 50, 21, 20, 90}.median_index() == 2);
  CHECK(Sample{10, 30}.median_index() == 0);  // 20 is as near to both
}

TEST_CASE("ratios are taken pair by pair, not of the medians") {
  const Sample ours{10, 100, 10};
  const Sample theirs{100, 1000, 20};
  const Sample ratios = pair_ratios(ours, theirs);
  REQUIRE(ratios.size() == 3);
  CHECK(ratios.values()[0] == doctest::Approx(0.1));
  CHECK(ratios.values()[1] == doctest::Approx(0.1));
  CHECK(ratios.values()[2] == doctest::Approx(0.5));
  CHECK(ratios.median() == doctest::Approx(0.1));
}

TEST_CASE("a pair without a partner, or divided by nothing, has no ratio") {
  CHECK(pair_ratios(Sample{1, 2, 3}, Sample{1, 0}).size() == 1);
}

TEST_CASE("who goes first alternates, and each goes once in every pair") {
  std::size_t ours_first = 0;
  for (std::size_t pair = 0; pair < 20; ++pair) {
    CHECK(turn_of(pair, 0) != turn_of(pair, 1));
    CHECK(turn_of(pair, 0) != turn_of(pair + 1, 0));
    if (turn_of(pair, 0) == Turn::ours) ++ours_first;
  }
  CHECK(ours_first == 10);
}

TEST_CASE("a row of the table has the runs in which its mark occurred, in the order of time") {
  const std::vector<Run> runs = {
      {{{"", "a", "A", 10}, {"nvme0", "b", "B", 15}, {"", "c", "C", 30}}, {}, {}},
      {{{"nvme0", "b", "B", 5}, {"", "a", "A", 12}}, {}, {}},
  };
  const auto rows = rows_of(runs);
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].key == "b");
  CHECK(rows[0].device == "nvme0");
  CHECK(rows[1].key == "a");
  CHECK(rows[2].at.size() == 1);
  // Steps are since the mark before in the same run, so those of a run add up to its last mark.
  CHECK(rows[0].step.values()[0] == 5);  // of 15, after a
  CHECK(rows[0].step.values()[1] == 5);  // of 5, the first
  CHECK(rows[1].step.values()[1] == 7);
}

TEST_CASE("the same key of two devices is two rows") {
  const std::vector<Run> runs = {
      {{{"disk0", "connected", "c", 1}, {"disk1", "connected", "c", 2}}, {}, {}}};
  CHECK(rows_of(runs).size() == 2);
}

TEST_CASE("times and sizes are written with three digits and their unit") {
  CHECK(duration_text(0) == "0 ns");
  CHECK(duration_text(850) == "850 ns");
  CHECK(duration_text(12'340) == "12.3 µs");
  CHECK(duration_text(4'561'000) == "4.56 ms");
  CHECK(duration_text(999.6e6) == "1.00 s");
  CHECK(duration_text(62e9) == "62.0 s");
  CHECK(size_text(4.3 * 1048576) == "4.30 MiB");
  CHECK(ratio_text(0.0312) == "0.031");
  CHECK(ratio_text(12.34) == "12.3");
}
