#pragma once

// One vCPU of KVM and its shared kvm_run area. KVM's exit structures end here: run() returns what
// happened as a value. Made on the main thread; run() and take_exit belong to the vCPU's thread,
// the register accessors to whoever knows that the vCPU does not run.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include <linux/kvm.h>

#include "vfio_user/unique_fd.h"
#include "vmm/error.h"
#include "vmm/kvm.h"
#include "vmm/vm.h"

namespace outboard::vmm {

// The guest accessed I/O ports: `count` accesses of `size` bytes, all to the same port. `data` is
// count * size bytes in the shared area, to be filled (read) or used (write) before the next run().
struct PioExit {
  std::uint16_t port = 0;
  std::uint32_t size = 0;  // 1, 2 or 4
  std::uint32_t count = 0;
  bool write = false;
  std::span<std::byte> data;
};

// The guest accessed memory that no slot holds. `data` is 1 to 8 bytes of the shared area.
struct MmioExit {
  std::uint64_t address = 0;
  bool write = false;
  std::span<std::byte> data;
};

// A kick or another signal: nothing for the guest.
struct InterruptedExit {};

// The guest's CPU shut itself down: on x86 a triple fault.
struct ShutdownExit {};

// The guest asked its firmware for something (PSCI).
struct SystemEventExit {
  enum class Kind { power_off, reset, crash };
  Kind kind = Kind::power_off;
};

// KVM cannot go on with this vCPU: an internal error, a refused entry, an exit nobody handles.
struct FailureExit {
  std::string what;  // one line, with KVM's own numbers
};

// The guest reached host pages that are gone: of a file that a server has shortened (see
// devices/page_guard.h), or memory that the host has lost.
struct PagesGoneExit {};

using VcpuExit = std::variant<PioExit, MmioExit, InterruptedExit, ShutdownExit, SystemEventExit,
                              PagesGoneExit, FailureExit>;

class Vcpu {
 public:
  // Errors: ExitStatus::no_kvm.
  [[nodiscard]] static Result<Vcpu> create(const Kvm& kvm, const Vm& vm, std::uint32_t index);

  Vcpu(Vcpu&& other) noexcept;
  Vcpu& operator=(Vcpu&&) = delete;
  ~Vcpu();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::uint32_t index() const { return index_; }

  // Runs guest code until something happens. Finishes the previous exit's access first.
  [[nodiscard]] VcpuExit run();

  // While set, run() only finishes the previous exit's access and returns InterruptedExit. Any
  // thread.
  void set_immediate_exit(bool on);

 private:
  Vcpu(std::uint32_t index, vfio_user::UniqueFd fd, kvm_run* area, std::size_t area_size)
      : index_(index), fd_(std::move(fd)), area_(area), area_size_(area_size) {}
  [[nodiscard]] VcpuExit decode();
  [[nodiscard]] FailureExit internal_error() const;

  std::uint32_t index_;
  vfio_user::UniqueFd fd_;
  kvm_run* area_;  // shared with the kernel
  std::size_t area_size_;
};

}  // namespace outboard::vmm
