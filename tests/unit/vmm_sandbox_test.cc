// Which thread of outboard may do what (issue 5, item 7; the table in vmm/README.md).
#include <array>
#include <iterator>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "tests/unit/boxed_child.h"
#include "vmm/arch.h"
#include "vmm/kvm_abi.h"
#include "vmm/sandbox.h"

using namespace outboard;
using namespace outboard::vmm;
using box::test::Call;

namespace {

long text(const char* string) {
  return reinterpret_cast<long>(string);
}

// a(ttach) t(win) v(cpu) m(ain) i(ntx) r(econnect)
const Call kCalls[] = {
    // Nobody.
    {"execve", SYS_execve, {0, 0, 0, 0}, ""},
    {"openat", SYS_openat, {AT_FDCWD, text("/"), O_RDONLY, 0}, ""},
    {"socket", SYS_socket, {AF_INET, SOCK_STREAM, 0, 0}, ""},
    {"mmap", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}, ""},
    {"clone", SYS_clone, {SIGCHLD, 0, 0, 0}, ""},
    {"kill", SYS_kill, {1, 0, 0, 0}, ""},
    {"io_uring_setup", SYS_io_uring_setup, {0, 0, 0, 0}, ""},
    {"prctl", SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0}, ""},
    {"ioctl", SYS_ioctl, {-1, KVM_CREATE_VM, 0, 0}, ""},
    {"ioctl", SYS_ioctl, {-1, KVM_CREATE_VCPU, 0, 0}, ""},
    {"ioctl", SYS_ioctl, {-1, static_cast<long>(abi::kSetCpuid), 0, 0}, ""},
    {"ioctl", SYS_ioctl, {-1, TIOCSTI, 0, 0}, ""},
    // What stays of KVM, of files and of sockets.
    {"ioctl", SYS_ioctl, {-1, KVM_RUN, 0, 0}, "v"},
    {"ioctl", SYS_ioctl, {-1, KVM_IRQFD, 0, 0}, "vmr"},
    {"ioctl", SYS_ioctl, {-1, KVM_IOEVENTFD, 0, 0}, "vmr"},
    {"ioctl", SYS_ioctl, {-1, KVM_SET_USER_MEMORY_REGION, 0, 0}, "vmr"},
    {"ioctl", SYS_ioctl, {-1, static_cast<long>(abi::kSetGsiRouting), 0, 0}, "vmr"},
    {"socket", SYS_socket, {AF_UNIX, -1, 0, 0}, "ar"},
    {"connect", SYS_connect, {-1, 0, 0, 0}, "ar"},
    {"sendmsg", SYS_sendmsg, {-1, 0, 0, 0}, "atvmir"},
    {"accept4", SYS_accept4, {-1, 0, 0, 0}, "m"},
    {"renameat", SYS_renameat, {-1, text("a"), -1, text("b")}, "m"},
    {"unlinkat", SYS_unlinkat, {-1, text("a"), 0, 0}, "m"},
    {"unlinkat", SYS_unlinkat, {-1, text("a"), AT_REMOVEDIR, 0}, ""},
    {"wait4", SYS_wait4, {-1, 0, 0, 0}, "m"},
    {"seccomp", SYS_seccomp, {1, 0, 0, 0}, "avmr"},
    {"eventfd2", SYS_eventfd2, {0, -1, 0, 0}, "avmr"},
    {"epoll_create1", SYS_epoll_create1, {-1, 0, 0, 0}, "ar"},
};

void check(ThreadKind kind, char letter) {
  std::vector<Call> calls(std::begin(kCalls), std::end(kCalls));
  for (const unsigned long request : arch::state_requests()) {  // the main thread's, for reboots
    calls.push_back({"ioctl", SYS_ioctl, {-1, static_cast<long>(request), 0, 0}, "m"});
  }
  box::test::check_calls(calls_of(kind), letter, calls);
}

}  // namespace

TEST_CASE("each kind of thread may do what the table says, and nothing else of it") {
  check(ThreadKind::attach, 'a');
  check(ThreadKind::twin, 't');
  check(ThreadKind::vcpu, 'v');
  check(ThreadKind::main, 'm');
  check(ThreadKind::intx, 'i');
  check(ThreadKind::reconnect, 'r');
}

TEST_CASE("a sandbox has walls for the threads that its machine can come to have, and counts") {
  MachineConfig config;
  const auto kinds = [&] {
    auto sandbox = Sandbox::create(config);
    REQUIRE(sandbox);
    std::string names;
    for (const auto& kind : (*sandbox)->report().kinds) {
      CHECK(kind.calls > 20);
      names += kind.name + ",";
    }
    return names;
  };
  CHECK(kinds() == "vCPU,main,");
  config.devices.emplace_back();
  CHECK(kinds() == "attach,twin socket,vCPU,main,INTx,");
  config.devices[0].on_disconnect = OnDisconnect::reconnect;
  CHECK(kinds() == "attach,twin socket,vCPU,main,INTx,reconnect,");
}
