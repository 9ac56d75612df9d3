#include "vmm/sandbox.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "vmm/arch.h"
#include "vmm/box/common_rules.h"
#include "vmm/kvm_abi.h"
#include "vmm/log.h"

namespace outboard::vmm {
namespace {

using box::CallRules;
using box::equals;
using box::join;
using box::one_of;

// What the guest's accesses ask of KVM: BARs that move, doorbells, interrupts and their routes.
CallRules device_requests() {
  return join({
      one_of("ioctl", 1,
             {KVM_IRQ_LINE, KVM_IRQFD, KVM_IOEVENTFD, KVM_SET_USER_MEMORY_REGION,
              static_cast<std::uint32_t>(abi::kSetGsiRouting)}),
      {{"kcmp"}},  // whether two descriptors are one eventfd
  });
}

// Reboot and register dump, which depend on the architecture.
CallRules vcpu_state_requests() {
  CallRules rules;
  for (const unsigned long request : arch::state_requests()) {
    rules.push_back({"ioctl", {equals(1, static_cast<std::uint32_t>(request))}});
  }
  return rules;
}

// Any thread may be the one that puts the terminal back, or writes to a pseudo-terminal that is
// full.
CallRules terminal() {
  return one_of("ioctl", 1, {TCSETS, TCSETSW, TCFLSH});
}

CallRules device_access() {
  return join({box::wait_for_events(), box::talk(), {{"eventfd2"}}, device_requests()});
}

// Capabilities that connecting and clearing up may need, of a process that has them: sockets and
// folders of other users, and room in a socket for a whole message.
constexpr std::uint64_t kForeignFiles = std::uint64_t{1} << CAP_DAC_OVERRIDE;
constexpr std::uint64_t kSocketBuffers = std::uint64_t{1} << CAP_NET_ADMIN;

constexpr std::array kKinds = {ThreadKind::attach, ThreadKind::twin, ThreadKind::vcpu,
                               ThreadKind::main,   ThreadKind::intx, ThreadKind::reconnect};

const char* name_of(ThreadKind kind) {
  switch (kind) {
    case ThreadKind::main:
      return "main";
    case ThreadKind::vcpu:
      return "vCPU";
    case ThreadKind::attach:
      return "attach";
    case ThreadKind::reconnect:
      return "reconnect";
    case ThreadKind::twin:
      return "twin socket";
    case ThreadKind::intx:
      break;
  }
  return "INTx";
}

std::uint64_t capabilities_of(ThreadKind kind) {
  switch (kind) {
    case ThreadKind::main:
      return kForeignFiles;
    case ThreadKind::attach:
    case ThreadKind::reconnect:
      return kForeignFiles | kSocketBuffers;
    case ThreadKind::vcpu:
    case ThreadKind::twin:
    case ThreadKind::intx:
      break;
  }
  return 0;
}

// Whether a machine of this configuration can come to have such a thread.
bool has(const MachineConfig& config, ThreadKind kind) {
  switch (kind) {
    case ThreadKind::main:
    case ThreadKind::vcpu:
      return true;
    case ThreadKind::attach:
    case ThreadKind::twin:
    case ThreadKind::intx:
      return !config.devices.empty();
    case ThreadKind::reconnect:
      break;
  }
  return std::ranges::any_of(config.devices, [](const DeviceConfig& device) {
    return device.on_disconnect == OnDisconnect::reconnect;
  });
}

}  // namespace

CallRules calls_of(ThreadKind kind) {
  const CallRules every = join({box::every_thread(), terminal()});
  switch (kind) {
    case ThreadKind::main:
      return join({every,
                   box::start_threads(),
                   device_access(),
                   vcpu_state_requests(),
                   one_of("ioctl", 1, {TCGETS, TCSBRK}),
                   {
                       {"timerfd_create"},
                       {"accept4"},  // the console's socket
                       {"pread64"},  // /proc files that were opened before
                       {"uname"},    // the report
                       {"rename"},   // reports, put in place
                       {"renameat"},
                       {"unlink"},  // what must not stay: sockets, links
                       {"unlinkat", {box::without(2, AT_REMOVEDIR)}},
                       {"wait4"},  // the launchers of servers
                   }});
    case ThreadKind::vcpu:
      return join({every, box::start_threads(), device_access(), one_of("ioctl", 1, {KVM_RUN})});
    case ThreadKind::attach:
      return join({every,
                   box::start_threads(),
                   box::wait_for_events(),
                   box::make_event_sources(),
                   box::talk(),
                   box::connect_sockets(),
                   {{"fstatfs"}}});
    case ThreadKind::reconnect:
      return join({calls_of(ThreadKind::attach), device_requests()});
    case ThreadKind::twin:
    case ThreadKind::intx:
      break;
  }
  return join({every, box::wait_for_events(), box::talk()});
}

Result<std::unique_ptr<Sandbox>> Sandbox::create(const MachineConfig& config,
                                                 std::vector<std::string> folders) {
  std::vector<box::ThreadKind> kinds;
  for (const ThreadKind kind : kKinds) {
    box::ThreadKind one{.name = name_of(kind), .capabilities = capabilities_of(kind)};
    if (has(config, kind)) one.calls = calls_of(kind);
    if (kind == ThreadKind::main) {
      for (std::string& folder : folders) one.folders.push_back({std::move(folder)});
    }
    kinds.push_back(std::move(one));
  }
  auto box = box::Box::create(std::move(kinds));
  if (!box) return failure(ExitStatus::internal_error, box.error());
  if ((*box)->landlock() == 0) {
    log::info("this kernel has no Landlock: the sandbox keeps files away by system calls alone");
  }
  return std::unique_ptr<Sandbox>(new Sandbox(std::move(*box)));
}

}  // namespace outboard::vmm
