// `outboard-bench access` itself: what it counts is what an access may cost, and every figure that
// it gives is one.
#include <algorithm>

#include <doctest/doctest.h>

#include "tools/bench/access_measure.h"
#include "tools/bench/access_nvme.h"

using namespace outboard::bench;

namespace {

const AccessRow& row_of(const AccessFigures& figures, const std::string& key) {
  const auto row = std::ranges::find(figures.rows, key, &AccessRow::key);
  REQUIRE_MESSAGE(row != figures.rows.end(), key);
  return *row;
}

Counts counts_of(const AccessFigures& figures, const std::string& key) {
  const AccessRow& row = row_of(figures, key);
  REQUIRE_MESSAGE(row.counts.has_value(), key);
  return *row.counts;
}

void check_counts(const AccessFigures& figures, const std::string& key, const Counts& wanted) {
  const Counts counts = counts_of(figures, key);
  INFO(key);
  CHECK(counts.exits == wanted.exits);
  CHECK(counts.messages == wanted.messages);
  CHECK(counts.replies == wanted.replies);
}

void check_figures(const AccessFigures& figures) {
  for (const AccessRow& row : figures.rows) {
    INFO(row.key);
    CHECK_FALSE(row.ns.empty());
    CHECK(row.ns.min() > 0);
    CHECK_FALSE(row.floor.empty());
    CHECK(row.floor.min() > 0);
    CHECK_FALSE(row.ratio.empty());
    CHECK(row.ratio.min() > 0);
  }
  for (const FloorRow& row : figures.floors) {
    INFO(row.key);
    CHECK_FALSE(row.ns.empty());
    CHECK(row.ns.median() > 0);
  }
  for (const FigureRow& row : figures.figures) {
    INFO(row.key);
    CHECK_FALSE(row.values.empty());
    CHECK(row.values.min() >= 0);
  }
}

}  // namespace

TEST_CASE(
    "access: a trapped read is one exit, one message, one reply; a posted write has no reply; an "
    "ioeventfd and a mapped page cost neither exits nor messages") {
  AccessSettings settings;
  settings.outboard = OUTBOARD_PROGRAM;
  settings.rounds = 3;
  settings.samples = 5;
  settings.counted = 50;
  AccessFigures figures;
  const auto done = measure_accesses(settings, figures);
  REQUIRE_MESSAGE(done.has_value(), done.error().message);
  CHECK(figures.rows.size() == 5);
  check_figures(figures);
  check_counts(figures, "trapped_read", {1, 1, 1});
  check_counts(figures, "posted_write", {1, 1, 0});
  check_counts(figures, "ioeventfd_store", {0, 0, 0});
  check_counts(figures, "ioeventfd_wake", {0, 0, 0});
  check_counts(figures, "mapped_store", {0, 0, 0});
}

TEST_CASE(
    "access: NVMe doorbells in a mapped page, or in a buffer while the server is busy, cost "
    "neither "
    "exits nor messages; trapped ones are posted writes, two a read") {
  NvmeSettings settings;
  settings.outboard = OUTBOARD_PROGRAM;
  settings.repetitions = 1;
  settings.blocks = 1;
  settings.reads = 20;
  settings.batches = 2;
  settings.batch = 200;
  settings.idle = std::chrono::milliseconds(50);
  for (const char* const mode : {"page", "shadow", "trap"}) {
    settings.contenders.push_back(
        {.key = mode,
         .name = mode,
         .shadow = std::string(mode) == "shadow",
         .ours = true,
         .server = {OUTBOARD_NVME_PROGRAM, "--memory", "4M", "--doorbells", mode},
         .socket = {}});
  }
  AccessFigures figures;
  const auto done = measure_nvme(settings, figures);
  REQUIRE_MESSAGE(done.has_value(), done.error().message);
  CHECK(figures.rows.size() == 6);
  check_figures(figures);
  check_counts(figures, "nvme_page_qd1", {0, 0, 0});
  check_counts(figures, "nvme_page_qd32", {0, 0, 0});
  check_counts(figures, "nvme_shadow_qd1", {0, 0, 0});
  check_counts(figures, "nvme_shadow_qd32", {0, 0, 0});
  check_counts(figures, "nvme_trap_qd1", {2, 2, 0});
  const auto idle = std::ranges::count_if(
      figures.figures, [](const FigureRow& row) { return row.key.ends_with("_idle"); });
  CHECK(idle == 3);
}

TEST_CASE(
    "access: a server that is no NVMe controller, or does not start, is an error that says so") {
  NvmeSettings settings;
  settings.outboard = OUTBOARD_PROGRAM;
  settings.contenders.push_back({.key = "x",
                                 .name = "X",
                                 .server = {OUTBOARD_NVME_PROGRAM, "--no-such-option"},
                                 .socket = {}});
  AccessFigures figures;
  const auto done = measure_nvme(settings, figures);
  REQUIRE_FALSE(done.has_value());
  CHECK(done.error().message.find("X: its server ended with status 2") != std::string::npos);
  CHECK(figures.rows.empty());
}

TEST_CASE("access: a progress that says no ends the measurement at once") {
  AccessSettings settings;
  settings.outboard = OUTBOARD_PROGRAM;
  int asked = 0;
  settings.progress = [&asked](const std::string&, double) {
    ++asked;
    return false;
  };
  AccessFigures figures;
  CHECK_FALSE(measure_accesses(settings, figures).has_value());
  CHECK(asked == 1);
}
