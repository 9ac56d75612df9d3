#include "vmm/vcpu.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

namespace outboard::vmm {
namespace {

std::string_view internal_error_name(std::uint32_t suberror) {
  switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      return "an instruction that KVM cannot emulate";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
      return "an exception while another was delivered";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
      return "an exit while an event was delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      return "an unexpected hardware exit";
    default:
      return "unknown";
  }
}

}  // namespace

Result<Vcpu> Vcpu::create(const Kvm& kvm, const Vm& vm, std::uint32_t index) {
  const int fd = kvm_ioctl(vm.fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(index));
  if (fd < 0) {
    return failure(ExitStatus::no_kvm,
                   fmt::format("KVM refuses vCPU {}: {}", index, std::strerror(-fd)));
  }
  vfio_user::UniqueFd owned(fd);
  void* area = ::mmap(nullptr, kvm.vcpu_area_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (area == MAP_FAILED) {
    const int error = errno;
    return failure(ExitStatus::no_kvm, fmt::format("cannot map the shared area of vCPU {}: {}",
                                                   index, std::strerror(error)));
  }
  return Vcpu(index, std::move(owned), static_cast<kvm_run*>(area), kvm.vcpu_area_size());
}

Vcpu::Vcpu(Vcpu&& other) noexcept
    : index_(other.index_),
      fd_(std::move(other.fd_)),
      area_(std::exchange(other.area_, nullptr)),
      area_size_(other.area_size_) {}

Vcpu::~Vcpu() {
  if (area_ != nullptr) ::munmap(area_, area_size_);
}

void Vcpu::set_immediate_exit(bool on) {
  std::atomic_ref<std::uint8_t>(area_->immediate_exit).store(on ? 1 : 0);
}

VcpuExit Vcpu::run() {
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) return decode();
  switch (errno) {
    case EINTR:
    case EAGAIN:  // an application processor that has not been started yet
      return InterruptedExit{};
    case EFAULT:
    case EHWPOISON:
      return PagesGoneExit{};
    case ENOSYS:  // arm64: an access of several registers to where there is no memory
      return FailureExit{"KVM cannot decode an access of the guest to a device"};
    default:
      return FailureExit{fmt::format("KVM_RUN failed: {}", std::strerror(errno))};
  }
}

VcpuExit Vcpu::decode() {
  kvm_run& area = *area_;
  switch (area.exit_reason) {
    case KVM_EXIT_IO: {
      auto* data = reinterpret_cast<std::byte*>(&area) + area.io.data_offset;
      const std::uint32_t size = area.io.size;
      return PioExit{area.io.port, size, area.io.count, area.io.direction == KVM_EXIT_IO_OUT,
                     std::span(data, static_cast<std::size_t>(size) * area.io.count)};
    }
    case KVM_EXIT_MMIO: {
      auto* data = reinterpret_cast<std::byte*>(area.mmio.data);
      const std::size_t size = std::min<std::size_t>(area.mmio.len, sizeof(area.mmio.data));
      return MmioExit{area.mmio.phys_addr, area.mmio.is_write != 0, std::span(data, size)};
    }
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return InterruptedExit{};
    case KVM_EXIT_SHUTDOWN:
      return ShutdownExit{};
    case KVM_EXIT_SYSTEM_EVENT:
      switch (area.system_event.type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
          return SystemEventExit{SystemEventExit::Kind::power_off};
        case KVM_SYSTEM_EVENT_RESET:
          return SystemEventExit{SystemEventExit::Kind::reset};
        case KVM_SYSTEM_EVENT_CRASH:
          return SystemEventExit{SystemEventExit::Kind::crash};
        default:
          return FailureExit{
              fmt::format("unknown system event {}", std::uint32_t{area.system_event.type})};
      }
    case KVM_EXIT_INTERNAL_ERROR:
      return internal_error();
    case KVM_EXIT_FAIL_ENTRY:
      return FailureExit{fmt::format(
          "KVM cannot enter the guest (KVM_EXIT_FAIL_ENTRY, hardware reason {:#x}, CPU {})",
          std::uint64_t{area.fail_entry.hardware_entry_failure_reason},
          std::uint32_t{area.fail_entry.cpu})};
    case KVM_EXIT_UNKNOWN:
      return FailureExit{
          fmt::format("KVM does not know why the guest stopped (hardware reason {:#x})",
                      std::uint64_t{area.hw.hardware_exit_reason})};
    default:
      return FailureExit{
          fmt::format("an exit that nobody handles (KVM exit reason {})", area.exit_reason)};
  }
}

FailureExit Vcpu::internal_error() const {
  const auto& error = area_->internal;
  std::string what = fmt::format("KVM internal error {}: {}", std::uint32_t{error.suberror},
                                 internal_error_name(error.suberror));
  const std::size_t count = std::min<std::size_t>(error.ndata, std::size(error.data));
  for (std::size_t i = 0; i < count; ++i) {
    what += fmt::format("{}{:#x}", i == 0 ? "; data " : " ", std::uint64_t{error.data[i]});
  }
  return FailureExit{std::move(what)};
}

}  // namespace outboard::vmm
