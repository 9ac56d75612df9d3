#pragma once

// The command lines of the VMMs, each as small as that VMM gets. Pure.

#include <string>
#include <vector>

#include "tools/bench/workload.h"

namespace outboard::bench {

// What a QEMU is and can.
struct Qemu {
  std::string path;
  std::string version;     // "11.1.3"
  bool vfio_user = false;  // it has vfio-user-pci
};

enum class QemuMachine { q35, microvm };

[[nodiscard]] std::string to_string(QemuMachine machine);

// `sockets`: one a disk; unused by a QEMU without vfio-user-pci, which gets its own NVMe controller
// on the image, forgetting what is written.
[[nodiscard]] std::vector<std::string> qemu_command(const Qemu& qemu, QemuMachine machine,
                                                    const Workload& workload,
                                                    const std::string& kernel,
                                                    const std::vector<std::string>& sockets);

[[nodiscard]] std::vector<std::string> cloud_hypervisor_command(
    const std::string& path, const Workload& workload, const std::vector<std::string>& sockets);

// "QEMU emulator version 11.1.3 (Debian …)" -> "11.1.3"; empty when there is none.
[[nodiscard]] std::string version_in(const std::string& line);

}  // namespace outboard::bench
