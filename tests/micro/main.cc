// The micro tests need /dev/kvm, of any kind (hardware or software): without it they are skipped,
// which is exit status 77.

#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include <doctest/doctest.h>

#include "vmm/arch.h"
#include "vmm/kvm.h"
#include "vmm/log.h"

int main(int argc, char** argv) {
  auto kvm = outboard::vmm::Kvm::open();
  if (!kvm) {
    std::printf("SKIPPED: %s\n", kvm.error().message.c_str());
    return 77;
  }
  if (auto enough = kvm->require(outboard::vmm::arch::required_capabilities()); !enough) {
    std::printf("SKIPPED: %s\n", enough.error().message.c_str());
    return 77;
  }
  outboard::vmm::log::set_level(outboard::vmm::log::Level::off);
  doctest::Context context;
  context.applyCommandLine(argc, argv);
  return context.run();
}
