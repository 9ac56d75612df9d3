#include "tools/bench/outputs.h"

#include <cstdio>

#include <fmt/core.h>

#include "tools/bench/html_page.h"
#include "tools/bench/private_folder.h"
#include "tools/bench/results_json.h"
#include "tools/bench/text_table.h"

namespace outboard::bench {

Result<void> put_out(const Results& results, const BenchOptions& options) {
  fmt::print("{}", text_table(results));
  std::fflush(stdout);
  if (!options.json.empty()) {
    if (auto written = write_file(options.json, results_json(results)); !written) return written;
  }
  if (!options.html.empty()) {
    if (auto written = write_file(options.html, html_page(results)); !written) return written;
  }
  return {};
}

int finish(const Result<void>& done) {
  if (done) return static_cast<int>(ExitStatus::done);
  fmt::print(stderr, "outboard-bench: {}\n", done.error().message);
  return to_int(done.error());
}

}  // namespace outboard::bench
