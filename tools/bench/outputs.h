#pragma once

#include "tools/bench/bench_options.h"
#include "tools/bench/error.h"
#include "tools/bench/summary.h"

namespace outboard::bench {

// The table on standard output, and the files that the options ask for.
[[nodiscard]] Result<void> put_out(const Results& results, const BenchOptions& options);

// An error on standard error, if there is one; the exit status.
int finish(const Result<void>& done);

}  // namespace outboard::bench
