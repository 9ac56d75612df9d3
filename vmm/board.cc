#include "vmm/board.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>
#include <linux/kvm.h>

#include "vmm/dma_plan.h"
#include "vmm/given_files.h"

namespace outboard::vmm {
namespace {

// What a KVM without the capability to say so offers.
constexpr int kDefaultMaxVcpus = 4;
constexpr int kDefaultMemslots = 32;
constexpr int kDefaultRoutes = 1024;

Result<GuestMemory> make_memory(const MachineConfig& config) {
  const auto ram = arch::ram_windows(config.memory);
  const bool given = !config.memory_fd.empty();
  auto files = plan_files(ram, config.devices, !given);
  if (!given) return GuestMemory::create(ram, config.page_size, std::move(files));
  auto fd = take_given(config.memory_fd, ExitStatus::memory);
  if (!fd) return tl::unexpected(fd.error());
  auto memory = GuestMemory::create(ram, config.page_size, std::move(files), std::move(*fd));
  if (memory) return memory;
  return failure(memory.error().status, fmt::format("machine.memory_fd: {}: {}", config.memory_fd,
                                                    memory.error().message));
}

}  // namespace

Result<std::unique_ptr<Board>> Board::create(const MachineConfig& config) {
  auto kvm = Kvm::open(config.kvm);
  if (!kvm) return tl::unexpected(kvm.error());
  if (auto enough = kvm->require(arch::required_capabilities()); !enough) {
    return tl::unexpected(enough.error());
  }
  int limit = kvm->capability(KVM_CAP_MAX_VCPUS);
  if (limit == 0) limit = kDefaultMaxVcpus;
  if (config.vcpus > static_cast<std::uint32_t>(limit)) {
    return failure(ExitStatus::no_kvm,
                   fmt::format("this host's KVM has {} vCPUs at most, the machine wants {}; lower "
                               "vcpus",
                               limit, config.vcpus));
  }
  auto memory = make_memory(config);
  if (!memory) return tl::unexpected(memory.error());
  return std::unique_ptr<Board>(new Board(std::move(*kvm), std::move(*memory)));
}

Result<std::vector<Vcpu>> Board::power_on(std::uint32_t vcpus) {
  const auto host = arch::HostCpu::ask(kvm_);
  if (!host) return tl::unexpected(host.error());
  auto layout = arch::memory_layout(memory_.size(), (*host)->physical_address_bits());
  if (!layout) return tl::unexpected(layout.error());
  layout_ = std::move(*layout);

  auto vm = kvm_.create_vm((*host)->vm_type());
  if (!vm) return tl::unexpected(vm.error());
  vm_.emplace(std::move(*vm));

  // Memory before the interrupt controller: its chips leave work behind for an SRCU grace period
  // (kernels from 6.18 on), and a change of memslots waits for that, 5 ms and more.
  int slots = vm_->capability(KVM_CAP_NR_MEMSLOTS);
  if (slots == 0) slots = kDefaultMemslots;
  memslots_.emplace(*vm_, static_cast<std::uint32_t>(slots));
  for (const devices::AddressWindow& window : layout_.reserved) memslots_->reserve(window);
  if (auto added = memslots_->add_ram(memory_); !added) return tl::unexpected(added.error());
  if (auto ready = arch::prepare_vm(*vm_); !ready) return tl::unexpected(ready.error());

  std::vector<Vcpu> made;
  for (std::uint32_t i = 0; i < vcpus; ++i) {
    auto vcpu = Vcpu::create(kvm_, *vm_, i);
    if (!vcpu) return tl::unexpected(vcpu.error());
    made.push_back(std::move(*vcpu));
  }
  auto cpus = arch::Cpus::create(kvm_, **host, *vm_, made);
  if (!cpus) return tl::unexpected(cpus.error());
  cpus_ = std::move(*cpus);

  const int routes = std::max(vm_->capability(KVM_CAP_IRQ_ROUTING), kDefaultRoutes);
  msi_.emplace(*vm_, arch::fixed_routes(), arch::first_msi_gsi(),
               static_cast<std::uint32_t>(routes));
  if (auto installed = msi_->install(); !installed) return tl::unexpected(installed.error());
  intx_.emplace(*vm_);
  io_events_.emplace(*vm_, arch::port_window());
  return made;
}

}  // namespace outboard::vmm
