#include "tools/bench/floors_machine.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "boot/kernel.h"
#include "tools/bench/access_guest.h"
#include "vmm/kvm_abi.h"

namespace outboard::bench {
namespace {

using vfio_user::Error;
using vfio_user::Result;

constexpr std::size_t kMagicAt = kBareShared - 4096;
constexpr std::uint64_t kNext = kBareBoard + kNextRegister;

tl::unexpected<Error> fail(const char* what) {
  const int code = errno;
  return tl::unexpected(
      Error{Error::Kind::system, code, std::string(what) + ": " + std::strerror(code)});
}

// KVM looks at CPUID before it lets a guest into long mode.
int copy_cpuid(int kvm, int vcpu) {
  constexpr std::uint32_t kEntries = 256;
  struct {
    vmm::abi::CountedHeader header{kEntries, 0};
    std::array<kvm_cpuid_entry2, kEntries> entries{};
  } cpuid;
  if (::ioctl(kvm, vmm::abi::kGetSupportedCpuid, &cpuid) < 0) return -1;
  return ::ioctl(vcpu, vmm::abi::kSetCpuid, &cpuid);
}

// The entry state of PVH: flat 32-bit protected mode.
int set_registers(int vcpu, std::uint64_t entry) {
  kvm_sregs system{};
  if (::ioctl(vcpu, KVM_GET_SREGS, &system) < 0) return -1;
  kvm_segment flat{};
  flat.limit = 0xffff'ffff;
  flat.selector = 0x18;
  flat.type = 3;  // read, write, accessed
  flat.present = flat.s = flat.g = flat.db = 1;
  system.ds = system.es = system.fs = system.gs = system.ss = flat;
  flat.selector = 0x10;
  flat.type = 0xb;  // execute, read, accessed
  system.cs = flat;
  system.cr0 = 0x11;  // protected mode, extension type
  system.cr4 = 0;
  system.efer = 0;
  if (::ioctl(vcpu, KVM_SET_SREGS, &system) < 0) return -1;
  kvm_regs registers{};
  registers.rflags = 2;
  registers.rip = entry;
  registers.rbx = kMagicAt;
  return ::ioctl(vcpu, KVM_SET_REGS, &registers);
}

}  // namespace

Result<std::unique_ptr<BareMachine>> BareMachine::create(const Placement& placement) {
  std::unique_ptr<BareMachine> machine(new BareMachine());
  if (auto done = machine->set_up(); !done) return tl::unexpected(done.error());
  machine->waiter_ = fork_process([&machine, &placement] {
    if (!bind_to(placement.server)) return;
    eventfd_t rings = 0;
    while (::eventfd_read(machine->bell_.get(), &rings) == 0) {
      std::atomic_ref<std::uint32_t>(machine->shared().wakes).fetch_add(1);
    }
  });
  if (machine->waiter_ < 0) return fail("fork");
  if (auto done = machine->run_until_it_asks({}); !done) return tl::unexpected(done.error());
  return machine;
}

BareMachine::~BareMachine() {
  end_process(waiter_);
  if (area_ != nullptr) ::munmap(area_, area_size_);
}

Result<void> BareMachine::set_up() {
  memory_ = SharedMemory(kBareMemory);
  auto loaded = boot::load_kernel(guest_image(), memory_.bytes(), boot::Entry::pvh);
  if (!loaded) return tl::unexpected(Error{Error::Kind::invalid, 0, loaded.error().message});
  memory_.at<std::uint32_t>(kMagicAt) = kBareMagic;

  kvm_.reset(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm_) return fail("/dev/kvm");
  vm_.reset(::ioctl(kvm_.get(), KVM_CREATE_VM, 0UL));
  if (!vm_) return fail("KVM_CREATE_VM");
  std::uint64_t identity = 0xfeff'c000;
  kvm_userspace_memory_region slot{};
  slot.memory_size = memory_.bytes().size();
  slot.userspace_addr = reinterpret_cast<std::uint64_t>(memory_.bytes().data());
  bell_.reset(::eventfd(0, EFD_CLOEXEC));
  kvm_ioeventfd doorbell{};
  doorbell.addr = kBareBoard + kBellRegister;
  doorbell.len = 4;
  doorbell.fd = bell_.get();
  if (::ioctl(vm_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
      ::ioctl(vm_.get(), KVM_SET_TSS_ADDR, 0xfeff'd000UL) < 0 ||
      ::ioctl(vm_.get(), KVM_CREATE_IRQCHIP, 0UL) < 0 ||
      ::ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &slot) < 0 ||
      ::ioctl(vm_.get(), KVM_IOEVENTFD, &doorbell) < 0) {
    return fail("KVM refuses a machine");
  }
  vcpu_.reset(::ioctl(vm_.get(), KVM_CREATE_VCPU, 0UL));
  const int size = ::ioctl(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0UL);
  if (!vcpu_ || size <= 0) return fail("KVM_CREATE_VCPU");
  area_size_ = static_cast<std::size_t>(size);
  void* area = ::mmap(nullptr, area_size_, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_.get(), 0);
  if (area == MAP_FAILED) return fail("the shared area of a vCPU");
  area_ = static_cast<kvm_run*>(area);
  if (copy_cpuid(kvm_.get(), vcpu_.get()) < 0) return fail("KVM_SET_CPUID2");
  if (set_registers(vcpu_.get(), loaded->entry) < 0) return fail("KVM_SET_REGS");
  return {};
}

Result<void> BareMachine::run_until_it_asks(const std::function<void()>& in_each) {
  for (;;) {
    ++exits_;
    if (::ioctl(vcpu_.get(), KVM_RUN, 0UL) < 0) {
      if (errno == EINTR) continue;
      return fail("KVM_RUN");
    }
    if (area_->exit_reason != KVM_EXIT_MMIO) {
      return tl::unexpected(
          Error{Error::Kind::system, EIO,
                "the bare machine stopped with KVM's exit reason " +
                    std::to_string(static_cast<std::uint32_t>(area_->exit_reason))});
    }
    if (area_->mmio.phys_addr == kNext) break;
    if (in_each) in_each();
    if (area_->mmio.is_write != 0) continue;
    std::memset(area_->mmio.data, 0, sizeof area_->mmio.data);
  }
  if (shared().end != 0) tick_.add(shared().end, now_ns());
  return {};
}

Result<std::vector<double>> BareMachine::run(const Order& order,
                                             const std::function<void()>& in_each) {
  put_order(order, shared());
  const std::uint32_t go_on = 1;
  std::memcpy(area_->mmio.data, &go_on, sizeof go_on);
  if (auto done = run_until_it_asks(in_each); !done) return tl::unexpected(done.error());
  if (const std::string failure = failure_of(shared()); !failure.empty()) {
    return tl::unexpected(Error{Error::Kind::invalid, EIO, "in the bare machine: " + failure});
  }
  return ticks_of(order, memory_.bytes().subspan(kBareShared));
}

}  // namespace outboard::bench
