#pragma once

// From runs to figures: the percentiles of each mark, the median run, the ratios of pairs. Pure.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/bench/host_facts.h"
#include "tools/bench/run.h"
#include "tools/bench/sample.h"

namespace outboard::bench {

// One VMM in one set-up, and its runs.
struct Side {
  std::string name;     // "outboard", "QEMU q35"
  std::string version;  // "0.1.0"
  std::string device;   // how its disk is attached: "vfio-user", "its own NVMe emulation"
  std::vector<std::string> command;
  std::vector<Run> runs;
};

// A mark over all runs in which it occurred.
struct Row {
  std::string device, key, name;
  Sample at;    // nanoseconds since process start
  Sample step;  // since the mark before it in the same run, whichever that was
};

// In the order of their medians.
[[nodiscard]] std::vector<Row> rows_of(const std::vector<Run>& runs);

// The times of one mark, run by run; runs without it are left out.
[[nodiscard]] Sample times_of(const std::vector<Run>& runs, std::string_view key);

// The run whose mark `key` is nearest to the median; the first run when none has it.
[[nodiscard]] const Run* median_run(const std::vector<Run>& runs, std::string_view key);

[[nodiscard]] Sample memory_of(const std::vector<Run>& runs);  // bytes, RssAnon + RssFile

// Pairs against one other VMM: ours.runs[i] and theirs.runs[i] were made in turn.
struct Duel {
  Side ours;
  Side theirs;
  std::string key;   // the mark that both are compared by
  std::string what;  // in words: what is compared, and whose clock
  [[nodiscard]] Sample ours_times() const { return times_of(ours.runs, key); }
  [[nodiscard]] Sample theirs_times() const { return times_of(theirs.runs, key); }
  [[nodiscard]] Sample ratios() const { return pair_ratios(ours_times(), theirs_times()); }
};

struct Results {
  std::string command;  // "start", "boot-to-io"
  std::string title;    // for people
  HostFacts host;
  Side ours;             // every run of outboard, those of pairs too
  std::string last_key;  // the mark that ends the measured time
  std::vector<Duel> duels;
  std::string floor_is;  // for people: "unpack and copy"
  Sample load_floor;     // of `start` with a kernel, see LoadFloor; else empty
  std::vector<std::string> notes;
};

}  // namespace outboard::bench
