#pragma once

// outboard's TOML: read for what other VMMs must be given alike, and rewritten so that its disks
// are servers that this program has started.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/bench/error.h"
#include "tools/bench/workload.h"

namespace outboard::bench {

class MachineFile {
 public:
  // Relative paths in the file start at its folder, as for outboard.
  [[nodiscard]] static Result<MachineFile> read(const std::string& path);
  // No file: a machine with that many disks of its own.
  [[nodiscard]] static MachineFile make(std::size_t disks);

  // Kernel, command line, memory, vCPUs. `disks`: images for devices that name a running server,
  // in their order; devices with a command of their own are served by that command. An error names
  // the device that cannot be served here.
  [[nodiscard]] Result<Workload> workload(const std::vector<std::string>& images,
                                          const std::string& outboard_nvme) const;

  // The file for `outboard run`, with the workload's kernel and command line, and these sockets.
  [[nodiscard]] std::string text(const Workload& workload,
                                 const std::vector<std::string>& sockets) const;

 private:
  struct Device {
    std::string name;
    std::vector<std::string> server;
    std::string socket;
  };

  std::string source_;  // TOML, checked to be one
  std::string folder_;
  std::string kernel_, initrd_, command_line_, memory_;
  int vcpus_ = 1;
  std::vector<Device> devices_;
};

// "512M" -> bytes; suffixes K, M, G, T, also KiB. Nothing on nonsense.
[[nodiscard]] std::optional<std::uint64_t> size_of(const std::string& text);

}  // namespace outboard::bench
