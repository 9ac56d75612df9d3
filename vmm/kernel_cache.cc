#include "vmm/kernel_cache.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/read_file.h"

namespace outboard::vmm {
namespace {

namespace fs = std::filesystem;

// A file or folder that nobody but this user can have written.
bool is_ours(const struct stat& status) {
  return status.st_uid == ::geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

std::string boot_id() {
  std::string id = read_file("/proc/sys/kernel/random/boot_id").value_or("");
  std::erase_if(id, [](char c) { return c == '\n' || c == '-'; });
  return id;
}

std::uint64_t nanoseconds(const timespec& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

bool write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

std::string KernelCache::user_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder;
  if (cache != nullptr && *cache == '/') {
    folder = cache;
  } else if (home != nullptr && *home == '/') {
    folder = fs::path(home) / ".cache";
  } else {
    return {};
  }
  folder = folder / "outboard" / "kernels";
  std::error_code error;
  fs::create_directories(folder, error);
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) || !is_ours(status)) {
    return {};
  }
  return folder.string();
}

KernelCache::KernelCache(std::string folder, int kernel) : folder_(std::move(folder)) {
  struct stat status {};
  const std::string id = boot_id();
  if (folder_.empty() || id.empty() || ::fstat(kernel, &status) != 0) return;
  name_ = fmt::format("{}-{:x}-{:x}-{:x}-{:x}-{:x}.elf", id, status.st_dev, status.st_ino,
                      status.st_size, nanoseconds(status.st_mtim), nanoseconds(status.st_ctim));
}

std::span<const std::byte> KernelCache::find() {
  if (name_.empty()) return {};
  if (!file_) {
    if (std::exchange(looked_, true)) return {};
    const std::string path = folder_ + "/" + name_;
    vfio_user::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) || !is_ours(status)) {
      return {};
    }
    file_ = std::move(fd);
  }
  mapped_ = MappedFile(file_.get());
  return mapped_.bytes();
}

void KernelCache::keep(std::span<const std::byte> unpacked) {
  if (name_.empty() || std::exchange(tried_, true)) return;
  make_room();
  std::string path = folder_ + "/new.XXXXXX";
  vfio_user::UniqueFd fd(::mkostemp(path.data(), O_CLOEXEC));  // mode 0600
  if (!fd) return log::debug("the unpacked kernel is not kept: {}", std::strerror(errno));
  const std::string kept = folder_ + "/" + name_;
  if (!write_all(fd.get(), unpacked) || ::rename(path.c_str(), kept.c_str()) != 0) {
    log::debug("the unpacked kernel is not kept in {}: {}", folder_, std::strerror(errno));
    ::unlink(path.c_str());
    return;
  }
  log::debug("the unpacked kernel is kept as {}", kept);
  file_ = std::move(fd);
}

// Removes what no run will use again, and the oldest beyond kKept - 1.
void KernelCache::make_room() const {
  struct Kept {
    fs::path path;
    fs::file_time_type written;
  };
  std::vector<Kept> kept;
  std::error_code error;
  const auto id = std::string_view(name_).substr(0, name_.find('-'));  // of this uptime
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const auto written = entry.last_write_time(error);
    if (error) continue;
    const bool usable = entry.path().filename().string().starts_with(id);
    const bool being_made = fs::file_time_type::clock::now() - written < std::chrono::minutes(10);
    if (usable) {
      kept.push_back({entry.path(), written});
    } else if (!being_made) {
      fs::remove(entry.path(), error);
    }
  }
  std::ranges::sort(kept, std::ranges::greater{}, &Kept::written);
  for (std::size_t i = kKept - 1; i < kept.size(); ++i) fs::remove(kept[i].path, error);
}

}  // namespace outboard::vmm
