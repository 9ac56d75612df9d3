#pragma once

// A file that another program waits for: it appears whole, or not at all.

#include <string>
#include <string_view>

#include "vfio_user/unique_fd.h"
#include "vmm/box/breach.h"
#include "vmm/error.h"

namespace outboard::vmm {

// A temporary file beside its final place, moved there by commit(); without it the file goes with
// the object, and what was there before stays. For one thread.
class OutputFile final {
 public:
  // Errors (ExitStatus::usage) name the path and the remedy: the folder cannot be written to, or
  // the path is something other than a regular file.
  [[nodiscard]] static Result<OutputFile> create(const std::string& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  // Appends. The first error stays, and is what commit() returns.
  void write(std::string_view text);

  // Errors: ExitStatus::internal_error (the file system is full, the folder is gone).
  [[nodiscard]] Result<void> commit();

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  OutputFile(std::string path, std::string temporary, vfio_user::UniqueFd file);

  std::string path_;
  std::string temporary_;  // empty: committed, or moved from
  vfio_user::UniqueFd file_;
  box::RemovedOnBreach removed_;
  int error_ = 0;
};

// The folder that `path` is in: "." for a bare name.
[[nodiscard]] std::string folder_of(const std::string& path);

}  // namespace outboard::vmm
