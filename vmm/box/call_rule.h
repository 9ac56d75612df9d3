#pragma once

// What a thread may ask of the kernel, as data: system calls by name, each perhaps with certain
// arguments only. Names and not numbers, since architectures have different ones; a call that the
// architecture at hand does not have (open, poll, epoll_wait on arm64) counts for nothing.

#include <cstdint>
#include <vector>

namespace outboard::box {

// (argument & mask) == value. Arguments count from 0.
struct ArgumentCheck {
  unsigned argument = 0;
  std::uint64_t mask = ~std::uint64_t{0};
  std::uint64_t value = 0;
};

// Where a call has several rules, one of them is enough; within a rule all checks must hold.
struct CallRule {
  const char* call = "";
  std::vector<ArgumentCheck> checks = {};
  int error = 0;  // not 0: the call is not carried out and fails with this errno
};

using CallRules = std::vector<CallRule>;

// The kernel takes the argument as an int: the upper half of the register says nothing.
[[nodiscard]] constexpr ArgumentCheck equals(unsigned argument, std::uint32_t value) {
  return {argument, 0xffff'ffff, value};
}
[[nodiscard]] constexpr ArgumentCheck without(unsigned argument, std::uint64_t bits) {
  return {argument, bits, 0};
}
[[nodiscard]] constexpr ArgumentCheck with(unsigned argument, std::uint64_t bits) {
  return {argument, bits, bits};
}

}  // namespace outboard::box
