#include "vmm/output_file.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

namespace outboard::vmm {
namespace {

namespace fs = std::filesystem;

// What a new file may be read and written by, as open(2) would have it.
mode_t usual_mode() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

std::string folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

OutputFile::OutputFile(std::string path, std::string temporary, vfio_user::UniqueFd file)
    : path_(std::move(path)),
      temporary_(std::move(temporary)),
      file_(std::move(file)),
      removed_(temporary_) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      file_(std::move(other.file_)),
      removed_(std::move(other.removed_)),
      error_(other.error_) {}

OutputFile::~OutputFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<OutputFile> OutputFile::create(const std::string& path) {
  std::error_code none;
  // Moving a file onto a link would replace the link.
  const fs::path target = fs::exists(path, none) ? fs::canonical(path, none) : fs::path(path);
  if (path.empty() || (fs::exists(target, none) && !fs::is_regular_file(target, none))) {
    return failure(ExitStatus::usage, fmt::format("'{}' is no regular file; name one, or a new one "
                                                  "in a folder that exists",
                                                  path));
  }
  std::string temporary = target.string() + ".XXXXXX";
  vfio_user::UniqueFd file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file) {
    return failure(ExitStatus::usage,
                   fmt::format("{} cannot be written: {}; name a file in a folder that exists and "
                               "may be written to",
                               path, std::strerror(errno)));
  }
  ::fchmod(file.get(), usual_mode());
  return OutputFile(target.string(), std::move(temporary), std::move(file));
}

void OutputFile::write(std::string_view text) {
  while (error_ == 0 && !text.empty()) {
    const ssize_t put = ::write(file_.get(), text.data(), text.size());
    if (put >= 0) {
      text.remove_prefix(static_cast<std::size_t>(put));
    } else if (errno != EINTR) {
      error_ = errno;
    }
  }
}

Result<void> OutputFile::commit() {
  if (error_ == 0 && std::rename(temporary_.c_str(), path_.c_str()) != 0) error_ = errno;
  if (error_ != 0) {
    return failure(ExitStatus::internal_error,
                   fmt::format("{} cannot be written: {}", path_, std::strerror(error_)));
  }
  temporary_.clear();
  removed_ = {};
  file_.reset();
  return {};
}

}  // namespace outboard::vmm
