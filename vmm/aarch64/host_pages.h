#pragma once

// The pages of the host's kernel, which arm64 has in three sizes. Pure, and tested on every host.

#include <cstdint>

#include <fmt/core.h>

#include "vmm/error.h"

namespace outboard::vmm::aarch64 {

constexpr std::uint64_t kLargestHostPage = 16 * 1024;

// Device servers share pages of 4 KiB. With pages of 16 KiB those stay trapped; with 64 KiB nothing
// of a device's BARs would be left to share, and no such host is tested. Errors:
// ExitStatus::no_kvm.
[[nodiscard]] inline Result<void> check_host_pages(std::uint64_t bytes) {
  if (bytes <= kLargestHostPage) return {};
  return failure(ExitStatus::no_kvm,
                 fmt::format("this host's kernel has pages of {} KiB, outboard runs with 4 and 16 "
                             "KiB; start a kernel with such pages",
                             bytes / 1024));
}

}  // namespace outboard::vmm::aarch64
