#include "tests/chaos/disk.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include <unistd.h>

namespace outboard::chaos {

namespace fs = std::filesystem;

Disk::Disk(DiskOptions options) : options_(std::move(options)) {
  folder_ = (fs::temp_directory_path() / "outboard-chaos.XXXXXX").string();
  if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  std::ofstream(folder_ + "/disk.img").close();
  fs::resize_file(folder_ + "/disk.img", 4 << 20);
}

Disk::~Disk() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::vector<std::string> Disk::command() const {
  std::vector<std::string> out = {program("outboard-nvme"), "--file", folder_ + "/disk.img",
                                  "--doorbells", options_.doorbells};
  if (options_.remembers) {
    out.insert(out.end(), {"--state", folder_ + "/state"});
  }
  return out;
}

std::string program(const std::string& name) {
  const char* const folder = std::getenv("OUTBOARD_BIN");
  if (folder != nullptr && *folder != '\0') {
    for (const char* place : {"/", "/vmm/", "/tools/nvme/", "/bin/"}) {
      const std::string path = folder + std::string(place) + name;
      if (::access(path.c_str(), X_OK) == 0 && fs::is_regular_file(path)) return path;
    }
    throw std::runtime_error("there is no " + name + " in OUTBOARD_BIN");
  }
  return name == "outboard" ? OUTBOARD_PROGRAM : OUTBOARD_NVME_PROGRAM;
}

}  // namespace outboard::chaos
