#pragma once

// What the host is, for reports: a figure means little without it.

#include <string>
#include <string_view>

#include "vmm/read_file.h"

namespace outboard::vmm {

struct HostFacts {
  std::string cpu_model;  // as /proc/cpuinfo names it; empty: unknown
  std::string kernel;     // its release, as uname -r prints it
  // The processor has VMX or SVM, or is an arm64 one. Without them /dev/kvm, where there is one,
  // interprets the guest's kernel code.
  bool hardware_kvm = false;
};

[[nodiscard]] HostFacts host_facts(const KernelFile& cpuinfo = KernelFile("/proc/cpuinfo"));

// The model and the flags of a text in the format of /proc/cpuinfo. Pure.
[[nodiscard]] HostFacts cpu_facts(std::string_view cpuinfo);

}  // namespace outboard::vmm
