#include "tools/bench/access_guest.h"

extern "C" {
extern const std::byte outboard_bench_guest_begin;  // guest/image.S
extern const std::byte outboard_bench_guest_end;
}

namespace outboard::bench {

std::span<const std::byte> guest_image() {
  return {&outboard_bench_guest_begin, &outboard_bench_guest_end};
}

}  // namespace outboard::bench
