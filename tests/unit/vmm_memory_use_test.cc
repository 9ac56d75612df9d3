// Resident memory by what stands behind it, and what the host is.
#include <cstring>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfio_user/unique_fd.h"
#include "vmm/host_facts.h"
#include "vmm/memory_use.h"

using namespace outboard;
using namespace outboard::vmm;

namespace {

constexpr const char* kSmaps =
    "55d0c0e00000-55d0c0e21000 r-xp 00000000 08:01 131 /usr/bin/outboard\n"
    "Size:                132 kB\n"
    "Rss:                 100 kB\n"
    "Pss:                  50 kB\n"
    "Anonymous:             0 kB\n"
    "VmFlags: rd ex mr mw me sd\n"
    "55d0c0e21000-55d0c0e22000 rw-p 00021000 08:01 131 /usr/bin/outboard\n"
    "Rss:                  12 kB\n"
    "Anonymous:             8 kB\n"
    "7f0000000000-7f0020000000 rw-s 00000000 00:01 77 /memfd:guest-memory (deleted)\n"
    "Rss:                4096 kB\n"
    "Anonymous:             0 kB\n"
    "7f0030000000-7f0030021000 rw-p 00000000 00:00 0 \n"
    "Rss:                  40 kB\n"
    "Anonymous:            40 kB\n"
    "7ffe10000000-7ffe10021000 rw-p 00000000 00:00 0 [stack]\n"
    "Rss:                   4 kB\n"
    "Anonymous:             4 kB\n";

// ThreadSanitizer keeps four bytes of its own for each that is touched.
#ifdef __SANITIZE_THREAD__
constexpr std::size_t kShadow = 4 * std::size_t{24 << 20};
#else
constexpr std::size_t kShadow = 0;
#endif

}  // namespace

TEST_CASE("proc(5) smaps: anonymous, file and shared pages are told apart, each counted once") {
  const MemoryUse use = sum_smaps(kSmaps);
  CHECK(use.anonymous == (8 + 40 + 4) * 1024);
  CHECK(use.file == (100 + 4) * 1024);
  CHECK(use.shared == 4096 * 1024);
  const MemoryUse nothing = sum_smaps("");
  CHECK(nothing.anonymous + nothing.file + nothing.shared == 0);
}

TEST_CASE("this process's memory grows by what it touches, in the right column") {
  constexpr std::size_t kSize = 16 << 20;
  const auto before = memory_use();
  REQUIRE(before);
  CHECK(before->file > 0);
  void* const anonymous =
      ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(anonymous != MAP_FAILED);
  std::memset(anonymous, 1, kSize);
  const vfio_user::UniqueFd file(::memfd_create("outboard-test", MFD_CLOEXEC));
  REQUIRE(::ftruncate(file.get(), kSize) == 0);
  void* const shared = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  REQUIRE(shared != MAP_FAILED);
  std::memset(shared, 1, kSize / 2);  // the other half stays untouched
  const auto after = memory_use();
  REQUIRE(after);
  CHECK(after->shared - before->shared == kSize / 2);
  CHECK(after->anonymous - before->anonymous >= kSize);
  CHECK(after->anonymous - before->anonymous < kSize + kShadow + (8 << 20));
  ::munmap(anonymous, kSize);
  ::munmap(shared, kSize);
}

TEST_CASE("the processor's model and whether it has VMX or SVM, from the flags as whole words") {
  const HostFacts intel = cpu_facts(
      "processor\t: 0\nmodel\t\t: 6\nmodel name\t: Intel(R) Xeon(R) Gold\nflags\t\t: fpu vmx "
      "sse\n\n"
      "processor\t: 1\nmodel name\t: other\n");
  CHECK(intel.cpu_model == "Intel(R) Xeon(R) Gold");
  CHECK(intel.hardware_kvm);
  CHECK(cpu_facts("flags\t\t: svm").hardware_kvm);
  CHECK(cpu_facts("flags\t\t: fpu svm\n").hardware_kvm);
  CHECK_FALSE(cpu_facts("flags\t\t: fpu svm_lock vmxnet\nvmx flags\t: vnmi\n").hardware_kvm);
  CHECK_FALSE(cpu_facts("").hardware_kvm);
  CHECK(cpu_facts("model name\n").cpu_model.empty());
  CHECK_FALSE(host_facts().kernel.empty());
}
