#include "tools/nvme/sandbox.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "vfio_user/given_fds.h"
#include "vmm/box/breach.h"
#include "vmm/box/common_rules.h"
#include "vmm/box/process.h"

namespace outboard::nvme {
namespace {

// Standard error may be a log file.
constexpr u64 kLeastFileLimit = u64{64} << 20;

// The socket's folder may be another user's, and a socket of a VMM takes a whole message.
constexpr u64 kForeignFiles = u64{1} << CAP_DAC_OVERRIDE;
constexpr u64 kSocketBuffers = u64{1} << CAP_NET_ADMIN;

// No image grows: what a guest writes lies inside of it.
u64 largest_file(const Options& options) {
  u64 largest = kLeastFileLimit;
  for (const NamespaceOptions& ns : options.namespaces) {
    struct stat info {};
    if (ns.kind != NamespaceOptions::Kind::file) continue;
    const auto given = vfio_user::parse_given_fd(ns.path);
    if ((given ? fstat(given->fd, &info) : stat(ns.path.c_str(), &info)) == 0) {
      largest = std::max(largest, static_cast<u64>(info.st_size));
    }
  }
  return largest;
}

std::string folder_of(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

}  // namespace

box::CallRules calls_of(ThreadKind kind) {
  if (kind == ThreadKind::pool) {
    return box::join(
        {box::every_thread(), {{"preadv2"}, {"pwritev2"}, {"fdatasync"}, {"fallocate"}}});
  }
  return box::join({box::every_thread(),
                    box::wait_for_events(),
                    box::make_event_sources(),
                    box::talk(),
                    {
                        {"accept4"},
                        {"socketpair", {box::equals(0, AF_UNIX)}},  // the twin socket
                        {"io_uring_enter"},  // its rings are restricted (uring_backend.cc)
                        {"fstatfs"},         // of guest memory: huge pages
                        {"readlink"},        // of descriptors in /proc/self/fd: eventfds or not
                        {"readlinkat"},
                        {"newfstatat"},  // whether the socket is still ours
                        {"unlink"},
                        {"unlinkat", {box::without(2, AT_REMOVEDIR)}},
                    }});
}

tl::expected<std::unique_ptr<box::Box>, std::string> make_sandbox(const Options& options) {
  box::close_inherited(std::array{options.ready_fd, options.first_read_fd});
  box::forbid_core_dumps();
  box::limit_file_size(largest_file(options));
  box::watch_for_breaches({.program = "outboard-nvme", .exit_status = kExitSandbox});
  const bool has_files = std::ranges::any_of(options.namespaces, [](const NamespaceOptions& ns) {
    return ns.kind == NamespaceOptions::Kind::file;
  });
  std::vector<box::ThreadKind> kinds(2);
  kinds[0].name = "pool";
  if (has_files) kinds[0].calls = calls_of(ThreadKind::pool);
  kinds[1].name = "service";
  kinds[1].calls = calls_of(ThreadKind::service);
  // A socket that was given has a name of somebody else's, if any.
  if (!vfio_user::is_given_fd(options.socket)) kinds[1].folders = {{folder_of(options.socket)}};
  kinds[1].capabilities = kForeignFiles | kSocketBuffers;
  return box::Box::create(std::move(kinds));
}

}  // namespace outboard::nvme
