#pragma once

#include <optional>
#include <string>

#include "vfio_user/unique_fd.h"

namespace outboard::vmm {

// A file of the kernel's (/proc, /sys) that is opened once and can be read again and again, as it
// is each time: also by whoever may open no file any more.
class KernelFile final {
 public:
  explicit KernelFile(const char* path);

  // All of it, whose size is not known before. None: it cannot be opened or read. Any thread.
  [[nodiscard]] std::optional<std::string> read() const;

 private:
  vfio_user::UniqueFd file_;
};

// All of a file of the kernel's (/proc, /sys), whose size says nothing. None: it cannot be read.
[[nodiscard]] std::optional<std::string> read_file(const char* path);

}  // namespace outboard::vmm
