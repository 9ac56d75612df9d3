// A small disk image for outboard-nvme in a folder of its own, with the state that outlives
// servers.
#pragma once

#include <string>
#include <vector>

namespace outboard::chaos {

struct DiskOptions {
  std::string doorbells = "shadow";
  bool remembers = true;  // --state
};

class Disk final {
 public:
  explicit Disk(DiskOptions options = {});
  ~Disk();  // with everything in the folder
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  // A path in the folder.
  [[nodiscard]] std::string operator/(const std::string& name) const {
    return folder_ + "/" + name;
  }
  // outboard-nvme that serves it, without a socket.
  [[nodiscard]] std::vector<std::string> command() const;

 private:
  const DiskOptions options_;
  std::string folder_;
};

// A program of the project: of the folder OUTBOARD_BIN if that is set, else of this build.
std::string program(const std::string& name);

}  // namespace outboard::chaos
