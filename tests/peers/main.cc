// The client against other people's servers, and QEMU's client against ours. Each peer is named by
// an environment variable; its tests are counted as skipped when it is not there.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include <doctest/doctest.h>

#include "tests/peers/process.h"

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  for (const char* const variable :
       {"OUTBOARD_PEER_LIBVFIO_USER", "OUTBOARD_PEER_SPDK", "OUTBOARD_PEER_QEMU"}) {
    if (outboard::peers::peer(variable) == nullptr) {
      std::printf("SKIPPED: %s is not set: the tests with this peer do not run\n", variable);
    }
  }
  if (!outboard::peers::has_kvm()) {
    std::printf("SKIPPED: /dev/kvm does not open: SPDK is not killed under a guest\n");
  }
  std::fflush(stdout);
  return context.run();
}
