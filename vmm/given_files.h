#pragma once

// Descriptors that outboard is started with in place of paths: KVM, guest memory, kernel, initrd,
// the devices' sockets. Main thread, at start; see vfio_user/given_fds.h for their names.

#include <cstdint>
#include <string>

#include "vfio_user/given_fds.h"
#include "vmm/error.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

// Replaces every name in `config` by its number, and keeps the descriptors from this process's
// children. Errors (ExitStatus::configuration): no such name, or a descriptor that is to be two
// things; only an open directory may be.
[[nodiscard]] Result<void> resolve_given_fds(MachineConfig& config,
                                             const vfio_user::GivenFds& passed);

// The descriptor itself, which belongs to the caller from now on. Errors (`status`): it is not
// open.
[[nodiscard]] Result<vfio_user::UniqueFd> take_given(const std::string& text, ExitStatus status);

// The socket is a connected one: it cannot be connected again.
[[nodiscard]] bool is_connected_socket(const DeviceConfig& device);

// Whether the file can be guest memory: a memfd, or a file of tmpfs or hugetlbfs, of that size and
// page size, open for reading and writing, and sealed so that its size stays, or to be. Errors
// (ExitStatus::memory).
[[nodiscard]] Result<void> check_memory_file(int fd, std::uint64_t size, PageSize page_size);

}  // namespace outboard::vmm
