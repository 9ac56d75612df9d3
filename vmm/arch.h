#pragma once

// What the machine asks of its architecture. Declared here, implemented by exactly one of the
// folders vmm/x86_64/ and vmm/aarch64/, which the build chooses. Everything is called on the main
// thread while no vCPU runs, unless it says otherwise.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linux/kvm.h>

#include "boot/kernel.h"
#include "boot/memory_map.h"
#include "boot/start.h"
#include "devices/address.h"
#include "devices/bus.h"
#include "vmm/error.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm.h"
#include "vmm/machine_config.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

namespace outboard::vmm::arch {

// --- The address map ---

// The guest-physical address space, and the fixed places in it.
struct MemoryLayout {
  std::vector<RamWindow> ram;
  devices::AddressWindow mmio32;
  devices::AddressWindow mmio64;
  devices::AddressWindow pio;  // ports for I/O BARs
  std::uint64_t ecam_base = 0;
  // Where the machine itself answers: a BAR moved there by the guest must not cover it with pages.
  std::vector<devices::AddressWindow> reserved;
  std::vector<boot::MemoryRange> map;  // as the guest is told, ascending
};

// Where the guest's RAM lies: the same on every host.
[[nodiscard]] std::vector<RamWindow> ram_windows(std::uint64_t memory);

// Errors (ExitStatus::memory): more memory than the guest can address.
[[nodiscard]] Result<MemoryLayout> memory_layout(std::uint64_t memory, unsigned physical_bits);

// Where a fixed device answers.
struct Place {
  devices::Space space = devices::Space::mmio;
  std::uint64_t base = 0;
};

// Fixed device wiring.
struct Wiring {
  Place uart;
  std::uint32_t uart_gsi = 0;
  Place power;  // the power block
  std::uint32_t power_button_gsi = 0;
  std::optional<Place> config_ports;  // CONFIG_ADDRESS; none: config space is ECAM alone
};
[[nodiscard]] Wiring wiring();

// For CPUs without port instructions: the guest-physical address where port 0 of the PCI bus is
// seen. None: ports are ports.
[[nodiscard]] std::optional<std::uint64_t> port_window();

// --- The host's CPU and KVM ---

// What KVM must have, and the least number of vCPUs a KVM of that kind offers is checked apart.
[[nodiscard]] std::span<const RequiredCapability> required_capabilities();

// What to do on a host of this architecture that has no /dev/kvm: "load …, enable …".
[[nodiscard]] std::string_view kvm_remedy();

// What this host's KVM can show a guest of its CPU. Asked once: KVM takes its time.
class HostCpu {
 public:
  virtual ~HostCpu() = default;

  // Errors: ExitStatus::no_kvm.
  [[nodiscard]] static Result<std::unique_ptr<const HostCpu>> ask(const Kvm& kvm);

  // The width of the guest's physical addresses, in bits.
  [[nodiscard]] virtual unsigned physical_address_bits() const = 0;

  // The machine type of KVM_CREATE_VM that has this width.
  [[nodiscard]] virtual unsigned long vm_type() const = 0;
};

// --- Interrupts ---

// The GSI of INTA of the PCI device in `slot`, or none: the device then has no interrupt pin.
[[nodiscard]] std::optional<std::uint32_t> intx_gsi(std::uint32_t slot);

// The routes of the interrupt controller's own pins, and the first GSI for messages.
[[nodiscard]] std::vector<kvm_irq_routing_entry> fixed_routes();
[[nodiscard]] std::uint32_t first_msi_gsi();

// The number by which KVM_IRQ_LINE knows a pin's GSI. Any thread.
[[nodiscard]] std::uint32_t irq_line(std::uint32_t gsi);

// --- The VM and its vCPUs ---

// Everything of the VM that comes before the first vCPU.
[[nodiscard]] Result<void> prepare_vm(const Vm& vm);

// The architecture's state of the VM and its vCPUs: what they are told about themselves, their
// registers at power-on, and the way back there.
class Cpus {
 public:
  virtual ~Cpus() = default;

  // Sets up `vcpus`, which were just created, and what of the VM comes after them, and remembers
  // the power-on state. From then on the VM takes interrupt routes.
  [[nodiscard]] static Result<std::unique_ptr<Cpus>> create(const Kvm& kvm, const HostCpu& host,
                                                            const Vm& vm, std::span<Vcpu> vcpus);

  // Brings every vCPU and the interrupt controller back to power-on.
  [[nodiscard]] virtual Result<void> reset(std::span<Vcpu> vcpus) = 0;

  // Registers of the first vCPU for the kernel's entry.
  [[nodiscard]] virtual Result<void> enter(Vcpu& vcpu, const boot::EntryState& entry) = 0;

  // Where the guest's time comes from, in words for the log.
  [[nodiscard]] virtual std::string description() const = 0;
};

// What Cpus::reset(), Cpus::enter() and register_dump() ask of KVM (ioctl requests): all that is
// left to the main thread of a running machine, besides what devices need.
[[nodiscard]] std::span<const unsigned long> state_requests();

// All registers of a stopped vCPU and the bytes at its instruction pointer, in lines for a person.
[[nodiscard]] std::string register_dump(const Vcpu& vcpu, const GuestMemory& memory);

// --- The kernel, and what it is told ---

// What of the configuration this architecture has not. Errors: ExitStatus::configuration.
[[nodiscard]] Result<void> check(const MachineConfig& config);

// As in boot/: puts the kernel into `memory`; where it will write most of it, as an offset in the
// first RAM window; whether an unpacked copy of `file` is worth keeping.
[[nodiscard]] boot::Result<boot::LoadedKernel> load_kernel(std::span<const std::byte> file,
                                                           const GuestMemory& memory,
                                                           boot::Entry entry,
                                                           boot::UnpackedStore* store);
[[nodiscard]] boot::Extent expected_extent(std::span<const std::byte> file,
                                           std::uint64_t window_size, boot::Entry entry);
[[nodiscard]] bool is_packed_kernel(std::span<const std::byte> file);

// What the guest is told about the machine, beside the address map.
struct GuestDescription {
  std::uint32_t vcpus = 1;
  std::uint32_t devices = 0;  // PCI devices, in slots 1 and up
  std::string_view command_line{};
  std::uint64_t initrd_size = 0;  // bytes; 0: none
};

// Writes initrd and command line around the kernel, and the tables or the tree that describe the
// machine. `initrd` has description.initrd_size bytes. Errors: ExitStatus::boot_image.
[[nodiscard]] Result<boot::EntryState> place_boot_data(const boot::LoadedKernel& kernel,
                                                       const GuestDescription& description,
                                                       std::span<const std::byte> initrd,
                                                       const MemoryLayout& layout,
                                                       const GuestMemory& memory);

// The same description as files, for `outboard dump`. Errors: ExitStatus::usage, where this
// architecture's guests are not told in that way; ExitStatus::boot_image.
struct NamedFile {
  std::string name;
  std::vector<std::byte> bytes;
};
[[nodiscard]] Result<std::vector<NamedFile>> acpi_tables(const GuestDescription& description,
                                                         const MemoryLayout& layout);
[[nodiscard]] Result<NamedFile> device_tree(const GuestDescription& description,
                                            const MemoryLayout& layout);

}  // namespace outboard::vmm::arch
