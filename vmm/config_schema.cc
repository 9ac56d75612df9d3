#include "vmm/config.h"

namespace outboard::vmm {

std::string schema() {
  return R"(# Every key of an outboard configuration, with its default.

[machine]
vcpus = 1                        # 1 to 64
memory = "512M"                  # 64M or more, a multiple of 2M (of 1G with page_size = "1G")
page_size = "4K"                 # "4K", "2M" or "1G"; the larger two need huge pages on the host
prefault = "auto"                # "off"; "auto": huge pages, and what a kernel takes first; or "all"
# vcpu_affinity = [[0], [1]]     # host CPUs of each vCPU
on_reboot = "restart"            # "restart" in place, or "exit" (status 0)
power_button_deadline = "60s"    # after the power button, the guest is stopped at this deadline
kvm = "/dev/kvm"                 # or a descriptor that outboard is started with: "fd:5", "fd:NAME"
# memory_fd = "fd:6"             # guest memory: a memfd of `memory` bytes that outboard is started with

[kernel]
path = "vmlinuz"                 # required: vmlinux (ELF with a PVH note) or bzImage; arm64: Image
# initrd = "initrd.img"          # both may be descriptors: "fd:3"
cmdline = ""                     # the guest's command line; nothing is added to it
entry = "auto"                   # "auto" (PVH where possible), "pvh", or "bzimage" (64-bit protocol)
keep_unpacked = true             # keep what a packed kernel unpacks to in ~/.cache/outboard/kernels

[console]
type = "stdio"                   # "stdio", "file", "pty", "socket" or "none"
# path = "console.log"           # file and socket: required; pty: a link to make (optional)
limit = "16M"                    # file: bytes kept

[[device]]                       # any number up to 31, in slot order from 00:01.0
name = "disk0"                   # default: device0, device1, ...
socket = "/run/disk0.sock"       # the vfio-user socket of a server that runs already; or "fd:7", connected, or
#                                # "fd:8/disk0.sock", in a directory that is open as descriptor 8
# server = ["outboard-nvme", "--file", "root.img"]   # or: a server to start; {socket} is replaced
server_uid = "self"              # who may be behind the socket: outboard's user or root; or a user id, a name, "any"
# affinity = [1]                 # host CPUs of a started server
# timeouts = { connect = "5s", version = "5s", setup = "5s", access = "5s", dma = "5s", reset = "5s" }
poll_replies = true              # a vCPU looks for the reply for 200 us before it sleeps, where that helps
posted_writes = true             # allow writes without a reply where the order permits them
dma = "all"                      # guest memory that the server may use: "all", "read-only", "none", or ranges:
# dma = [{ base = "0x4000000", size = "64M", access = "read-only" }]   # multiples of 2M; else "read-write"
on_disconnect = "stop"           # "stop" the machine (status 8), "detach" (reads give all ones), "reconnect"
# reconnect = { hold = "8s", deadline = "60s", first_delay = "10ms", last_delay = "1s", give_up = "detach" }
#                                # accesses wait for `hold` (9900ms at most), then give all ones; after `deadline`
#                                # the device is given up: "detach" or "stop"
on_error = "log"                 # when the server signals an error (ERR): "log", or "stop" (status 8)
on_request = "log"               # when the server asks for the device's removal (REQ): the same
# max_vectors = 16               # MSI-X vectors shown to the guest at most
# map = { bar0 = false }         # do not map a BAR's shared pages; trap every access
# vendor_id = 0x1b36             # also device_id, subsystem_vendor_id, subsystem_id, class_code
)";
}

}  // namespace outboard::vmm
