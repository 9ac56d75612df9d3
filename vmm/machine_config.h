#pragma once

// The machine to build, fully resolved: what remains of a TOML file and its overrides once every
// default is applied and every path is absolute. Plain data; filled by config.cc, read by Machine.

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "boot/kernel.h"
#include "vfio_user/client.h"

namespace outboard::vmm {

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kGiB = 1024 * kMiB;

constexpr std::uint32_t kMaxVcpus = 64;
constexpr std::uint64_t kMinMemory = 64 * kMiB;

enum class PageSize : std::uint64_t { k4 = 4 * kKiB, m2 = 2 * kMiB, g1 = kGiB };

enum class Prefault {
  off,        // pages are faulted in as the guest touches them
  automatic,  // huge pages are faulted in while the devices attach; of 4 KiB pages only what a
              // kernel takes first (first_pages.h)
  all,        // every page is present before the first instruction of the guest
};

enum class OnReboot { restart, exit };
enum class OnDisconnect { stop, detach, reconnect };
enum class OnGiveUp { detach, stop };
enum class OnSignal { log, stop };  // of ERR and REQ, the server's own events

enum class ConsoleType { stdio, file, pty, socket, none };

struct ConsoleConfig {
  ConsoleType type = ConsoleType::stdio;
  std::string path;                 // file: what is written; socket: where to listen; pty: link
  std::uint64_t limit = 16 * kMiB;  // file: bytes kept, later output is dropped and counted
};

enum class DmaAccess { read_only, read_write };

// Guest memory that a device's server may use.
struct DmaRange {
  std::uint64_t base = 0;      // guest-physical
  std::uint64_t size = ~0ULL;  // bytes; as it is here: all there are
  DmaAccess access = DmaAccess::read_write;
  bool operator==(const DmaRange&) const = default;
};

// Who may be behind a device's socket.
struct ServerUser {
  enum class Kind {
    self,  // outboard's own user, or root
    any,
    uid,
  };
  Kind kind = Kind::self;
  std::uint32_t uid = 0;  // with Kind::uid
  bool operator==(const ServerUser&) const = default;
};

// With OnDisconnect::reconnect.
struct ReconnectConfig {
  std::chrono::milliseconds hold{8000};       // accesses wait so long for the server; below 10 s
  std::chrono::milliseconds deadline{60000};  // then nothing is waited for any more
  std::chrono::milliseconds first_delay{10};  // between attempts, doubled from one to the next
  std::chrono::milliseconds last_delay{1000};
  OnGiveUp give_up = OnGiveUp::detach;  // at the deadline, or when another device is there
};

struct DeviceConfig {
  std::string name;                  // unique; for logs, errors and statistics
  std::string socket;                // path of the vfio-user socket; empty with `server`
  std::vector<std::string> server;   // argv of a server to start first; "{socket}" is replaced
  ServerUser server_user;            // of the process behind the socket
  std::vector<int> server_affinity;  // host CPUs of the server; empty: any
  vfio_user::Timeouts timeouts;      // per class of request
  bool poll_replies = true;          // before sleeping, look for a reply for a moment
  bool posted_writes = true;         // allow No_reply writes where the order permits them
  std::vector<DmaRange> dma{{}};     // all of memory; empty: none
  OnDisconnect on_disconnect = OnDisconnect::stop;
  ReconnectConfig reconnect;
  OnSignal on_error = OnSignal::log;         // the server signals ERR
  OnSignal on_request = OnSignal::log;       // the server signals REQ
  std::optional<std::uint32_t> max_vectors;  // MSI-X vectors shown to the guest at most
  std::map<std::uint32_t, bool> map;         // region index -> may its sparse areas be mapped
  std::optional<std::uint16_t> vendor_id, device_id, subsystem_vendor_id, subsystem_id;
  std::optional<std::uint32_t> class_code;  // 24 bits: class, subclass, programming interface
};

// Paths of `kvm`, `kernel`, `initrd` and `socket` may name a descriptor instead, and `memory_fd`
// always does: "fd:5" or "fd:NAME", which is a number before the machine is made
// (resolve_given_fds()); its first user takes it over.
struct MachineConfig {
  std::uint32_t vcpus = 1;
  std::uint64_t memory = 512 * kMiB;  // bytes, a multiple of 2 MiB and of page_size
  PageSize page_size = PageSize::k4;
  Prefault prefault = Prefault::automatic;
  std::vector<std::vector<int>> vcpu_affinity;  // one list of host CPUs a vCPU; may be shorter
  OnReboot on_reboot = OnReboot::restart;
  std::chrono::milliseconds power_button_deadline{60000};
  std::string kvm = "/dev/kvm";
  std::string memory_fd;  // empty: guest memory is made here

  std::string kernel;
  std::string initrd;  // empty: none
  std::string command_line;
  boot::Entry entry = boot::Entry::automatic;
  bool keep_unpacked = true;  // see KernelCache

  ConsoleConfig console;
  std::vector<DeviceConfig> devices;  // in slot order: 00:01.0, 00:02.0, ...

  bool statistics = false;  // print counters on stderr at the end
};

}  // namespace outboard::vmm
