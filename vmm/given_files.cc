#include "vmm/given_files.h"

#include <map>

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "vmm/units.h"

namespace outboard::vmm {

using vfio_user::is_given_fd;

Result<void> resolve_given_fds(MachineConfig& config, const vfio_user::GivenFds& passed) {
  std::map<int, std::string> users;  // by descriptor; a directory has no one user
  const auto resolve = [&](std::string& value, const std::string& key) -> Result<void> {
    if (!is_given_fd(value)) return {};
    const auto given = passed.find(value);
    if (!given)
      return failure(ExitStatus::configuration, fmt::format("{}: {}", key, given.error().message));
    value = given->text();
    if (!given->file.empty()) return {};
    const auto [other, first] = users.emplace(given->fd, key);
    if (first) return {};
    return failure(
        ExitStatus::configuration,
        fmt::format("{}: {} is {} already; pass another descriptor", key, value, other->second));
  };
  for (const auto& [value, key] :
       {std::pair{&config.kvm, "machine.kvm"}, std::pair{&config.memory_fd, "machine.memory_fd"},
        std::pair{&config.kernel, "kernel.path"}, std::pair{&config.initrd, "kernel.initrd"}}) {
    if (auto done = resolve(*value, key); !done) return done;
  }
  for (DeviceConfig& device : config.devices) {
    if (auto done = resolve(device.socket, fmt::format("socket of device '{}'", device.name));
        !done)
      return done;
  }
  return {};
}

Result<vfio_user::UniqueFd> take_given(const std::string& text, ExitStatus status) {
  const auto given = vfio_user::parse_given_fd(text);
  if (!given || !given->file.empty())
    return failure(status, fmt::format("'{}' is no descriptor; write \"fd:NUMBER\"", text));
  auto fd = vfio_user::take_given_fd(given->fd);
  if (!fd) return failure(status, fd.error().message);
  return std::move(*fd);
}

bool is_connected_socket(const DeviceConfig& device) {
  return is_given_fd(device.socket) && device.socket.find('/') == std::string::npos;
}

Result<void> check_memory_file(int fd, std::uint64_t size, PageSize page_size) {
  const auto refuse = [](const std::string& why) { return failure(ExitStatus::memory, why); };
  struct stat status {};
  struct statfs system {};
  if (::fstat(fd, &status) != 0 || ::fstatfs(fd, &system) != 0) return refuse("it is not open");
  const bool huge = system.f_type == HUGETLBFS_MAGIC;
  if (!S_ISREG(status.st_mode) || (!huge && system.f_type != TMPFS_MAGIC))
    return refuse("it is no memfd, and no file of tmpfs or hugetlbfs");
  if ((::fcntl(fd, F_GETFL) & (O_ACCMODE | O_PATH)) != O_RDWR)
    return refuse("it is not open for reading and writing");
  const auto wanted = static_cast<std::uint64_t>(page_size);
  const auto page = huge ? static_cast<std::uint64_t>(system.f_bsize) : 4 * kKiB;
  if (page != wanted)
    return refuse(fmt::format("it has pages of {}, machine.page_size is {}", format_size(page),
                              format_size(wanted)));
  if (static_cast<std::uint64_t>(status.st_size) != size)
    return refuse(fmt::format("it has {} bytes, machine.memory is {} ({}): make them the same",
                              status.st_size, format_size(size), size));
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return refuse("it cannot be sealed, so that its size stays; use memfd_create(2)");
  if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0)
    return refuse("it is sealed against writing");
  constexpr int kSize = F_SEAL_SHRINK | F_SEAL_GROW;
  if ((seals & kSize) != kSize && (seals & F_SEAL_SEAL) != 0)
    return refuse(
        "its size can change and no seal can be added; make it with MFD_ALLOW_SEALING, or seal it "
        "with F_SEAL_SHRINK and F_SEAL_GROW");
  return {};
}

}  // namespace outboard::vmm
