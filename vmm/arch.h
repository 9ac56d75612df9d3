#pragma once

// What the machine asks of its architecture. Declared here, implemented by exactly one of the
// folders vmm/x86_64/ (and later vmm/aarch64/), which the build chooses. Everything is called on
// the main thread while no vCPU runs, unless it says otherwise.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <linux/kvm.h>

#include "boot/acpi.h"
#include "boot/kernel.h"
#include "boot/memory_map.h"
#include "boot/start.h"
#include "devices/address.h"
#include "vmm/error.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm.h"
#include "vmm/machine_config.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

namespace outboard::vmm::arch {

// The guest-physical address space, and the fixed places in it.
struct MemoryLayout {
  std::vector<RamWindow> ram;
  devices::AddressWindow mmio32;
  devices::AddressWindow mmio64;
  devices::AddressWindow pio;  // for I/O BARs
  std::uint64_t ecam_base = 0;
  // Where the machine itself answers: a BAR moved there by the guest must not cover it with pages.
  std::vector<devices::AddressWindow> reserved;
  std::vector<boot::MemoryRange> map;  // as the guest is told, ascending
};

// Fixed device wiring.
struct Wiring {
  std::uint16_t uart_port = 0;
  std::uint32_t uart_gsi = 0;
  std::uint32_t power_button_gsi = 0;
  std::uint16_t power_port = 0;
  std::uint16_t config_ports = 0;  // CONFIG_ADDRESS
};
[[nodiscard]] Wiring wiring();

// The GSI of INTA of the PCI device in `slot`, or none: the device then has no interrupt pin.
[[nodiscard]] std::optional<std::uint32_t> intx_gsi(std::uint32_t slot);

// What KVM must have, and the least number of vCPUs a KVM of that kind offers is checked apart.
[[nodiscard]] std::span<const RequiredCapability> required_capabilities();

// What this host's KVM can show a guest of its CPU. Asked once: KVM takes its time.
class HostCpu {
 public:
  virtual ~HostCpu() = default;

  // Errors: ExitStatus::no_kvm.
  [[nodiscard]] static Result<std::unique_ptr<const HostCpu>> ask(const Kvm& kvm);

  // The width of the guest's physical addresses, in bits.
  [[nodiscard]] virtual unsigned physical_address_bits() const = 0;
};

// Where the guest's RAM lies: the same on every host.
[[nodiscard]] std::vector<RamWindow> ram_windows(std::uint64_t memory);

// Errors (ExitStatus::memory): more memory than the guest can address.
[[nodiscard]] Result<MemoryLayout> memory_layout(std::uint64_t memory, unsigned physical_bits);

// Everything of the VM that comes before the first vCPU: the interrupt controller.
[[nodiscard]] Result<void> prepare_vm(const Vm& vm);

// The routes of the interrupt controller's own pins, and the first GSI for messages.
[[nodiscard]] std::vector<kvm_irq_routing_entry> fixed_routes();
[[nodiscard]] std::uint32_t first_msi_gsi();

// The architecture's state of the VM and its vCPUs: what they are told about themselves, their
// registers at power-on, and the way back there.
class Cpus {
 public:
  virtual ~Cpus() = default;

  // Sets up `vcpus`, which were just created, and remembers the power-on state.
  [[nodiscard]] static Result<std::unique_ptr<Cpus>> create(const Kvm& kvm, const HostCpu& host,
                                                            const Vm& vm, std::span<Vcpu> vcpus);

  // Brings every vCPU and the interrupt controller back to power-on.
  [[nodiscard]] virtual Result<void> reset(std::span<Vcpu> vcpus) = 0;

  // Registers of the first vCPU for the kernel's entry.
  [[nodiscard]] virtual Result<void> enter(Vcpu& vcpu, const boot::EntryState& entry) = 0;

  // Where the guest's time comes from, in words for the log.
  [[nodiscard]] virtual std::string description() const = 0;
};

// Firmware tables for the machine (ACPI). Placed by load_guest(); also for `outboard dump`.
struct FirmwareDescription {
  std::uint32_t vcpus = 1;
  std::uint32_t devices = 0;  // PCI devices, in slots 1 and up
};
struct FirmwareTables {
  std::uint64_t base = 0;  // guest-physical
  std::uint64_t root = 0;  // what the kernel is told (RSDP)
  std::vector<std::byte> bytes;
  std::vector<boot::NamedTable> tables;  // where each lies in `bytes`
  // Code for a guest that resets by jumping to where firmware would be. Empty: no such thing.
  std::uint64_t reset_vector = 0;  // guest-physical
  std::vector<std::byte> reset_code;
};
[[nodiscard]] FirmwareTables firmware_tables(const FirmwareDescription& description,
                                             const MemoryLayout& layout);

// All registers of a stopped vCPU and the bytes at its instruction pointer, in lines for a person.
[[nodiscard]] std::string register_dump(const Vcpu& vcpu, const GuestMemory& memory);

}  // namespace outboard::vmm::arch
