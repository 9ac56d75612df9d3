// Opening KVM on hosts that do not have it, and what is said then.
#include <array>

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/arch.h"
#include "vmm/kvm.h"
#include "vmm/kvm_abi.h"

using namespace outboard::vmm;

TEST_CASE("an absent /dev/kvm: status 5, the remedy named") {
  const auto kvm = Kvm::open("/tmp/outboard-no-such-kvm");
  REQUIRE_FALSE(kvm);
  CHECK(kvm.error().status == ExitStatus::no_kvm);
  CHECK(kvm.error().message.find("is absent") != std::string::npos);
  CHECK(kvm.error().message.find(arch::kvm_remedy()) != std::string::npos);
}

TEST_CASE("a file that is no KVM: status 5, said as it is") {
  const auto kvm = Kvm::open("/dev/null");
  REQUIRE_FALSE(kvm);
  CHECK(kvm.error().status == ExitStatus::no_kvm);
  CHECK(kvm.error().message.find("does not answer as KVM") != std::string::npos);
}

TEST_CASE("no permission on /dev/kvm: status 5, the group named") {
  if (::geteuid() == 0) {
    MESSAGE("root may open everything; not tested");
    return;
  }
  const auto kvm = Kvm::open("/dev/mem");
  REQUIRE_FALSE(kvm);
  CHECK(kvm.error().message.find("usermod -aG kvm") != std::string::npos);
}

TEST_CASE("every missing capability is named with its use, in one line") {
  auto kvm = Kvm::open();
  if (!kvm) {
    MESSAGE("no KVM here; not tested");
    return;
  }
  constexpr std::array<RequiredCapability, 3> required{{
      {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", "guest memory"},
      {0x7ffffff0, "KVM_CAP_FLYING", "flying"},
      {0x7ffffff1, "KVM_CAP_SINGING", "singing"},
  }};
  const auto enough = kvm->require(required);
  REQUIRE_FALSE(enough);
  CHECK(enough.error().message.find("KVM_CAP_FLYING (flying); KVM_CAP_SINGING (singing)") !=
        std::string::npos);
  CHECK(enough.error().message.find("KVM_CAP_USER_MEMORY") == std::string::npos);
}

TEST_CASE("request numbers are those of the C ABI (KVM API, Documentation/virt/kvm/api.rst)") {
  CHECK(abi::kGetMsrs == 0xc008ae88);
  CHECK(abi::kSetCpuid == 0x4008ae90);
  CHECK(abi::kSetGsiRouting == 0x4008ae6a);
  CHECK(abi::kGetXsave == 0x9000aea4);
  CHECK(abi::kGetMsrIndexList == 0xc004ae02);
  CHECK(abi::kGetSupportedCpuid == 0xc008ae05);
}
