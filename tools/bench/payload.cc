#include "tools/bench/payload.h"

extern "C" {
// payload_bytes.S
extern const char outboard_bench_payload_begin[];
extern const char outboard_bench_payload_end[];
}

namespace outboard::bench {

std::string_view poweroff_payload() {
  return {outboard_bench_payload_begin,
          static_cast<std::size_t>(outboard_bench_payload_end - outboard_bench_payload_begin)};
}

}  // namespace outboard::bench
