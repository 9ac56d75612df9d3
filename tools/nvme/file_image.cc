#include "tools/nvme/file_image.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/nvme/aligned_buffer.h"
#include "vfio_user/given_fds.h"

namespace outboard::nvme {
namespace {

std::string open_error(const std::string& path, bool read_only, int error) {
  switch (error) {
    case ENOENT:
      return "image '" + path + "' does not exist; create one with: truncate -s 1G '" + path + "'";
    case EACCES:
    case EPERM:
    case EROFS:
      return read_only ? "no permission to read image '" + path + "'; run as its owner"
                       : "no permission to write image '" + path +
                             "'; run as its owner, or serve it with --read-only";
    case EISDIR:
      return "'" + path + "' is a directory; name an image file or a block device";
    default:
      return "cannot open image '" + path + "': " + std::strerror(error);
  }
}

// The descriptor that the program was started with.
tl::expected<vfio_user::UniqueFd, std::string> given_file(const std::string& path, bool read_only) {
  const auto given = vfio_user::parse_given_fd(path);
  if (!given || !given->file.empty()) {
    return tl::unexpected("image '" + path + "': write fd:NUMBER or fd:NAME");
  }
  auto fd = vfio_user::take_given_fd(given->fd);
  if (!fd) return tl::unexpected("image '" + path + "': " + fd.error().message);
  const int mode = fcntl(fd->get(), F_GETFL);
  if ((mode & O_PATH) != 0 || (mode & O_ACCMODE) == O_WRONLY) {
    return tl::unexpected("image '" + path + "' is not open for reading");
  }
  if (!read_only && (mode & O_ACCMODE) != O_RDWR) {
    return tl::unexpected("image '" + path +
                          "' is not open for writing; open it so, or serve it with --read-only");
  }
  return std::move(*fd);
}

// False: errno says why.
bool lock(int fd, const std::string& path, bool read_only, const LockWait& wait) {
  using Clock = std::chrono::steady_clock;
  using std::chrono::milliseconds;
  struct flock lock {};
  lock.l_type = static_cast<short>(read_only ? F_RDLCK : F_WRLCK);
  lock.l_whence = SEEK_SET;
  const auto begin = Clock::now();
  auto say_at = begin + std::chrono::seconds(1);
  auto pause = std::chrono::microseconds(100);
  while (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    const auto now = Clock::now();
    const bool held = errno == EAGAIN || errno == EACCES;
    if (!held || now - begin >= wait.patience) return false;
    if (now >= say_at && wait.progress) {
      say_at += std::chrono::seconds(1);
      const auto seconds = [](auto time) {
        return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count());
      };
      wait.progress("image '" + path +
                    "' is still locked, by requests of the killed server or by another process; "
                    "waiting (" +
                    seconds(now - begin) + " s of " + seconds(wait.patience) + ")");
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(10'000));
  }
  return true;
}

}  // namespace

tl::expected<std::unique_ptr<FileImage>, std::string> FileImage::open(const std::string& path,
                                                                      bool read_only,
                                                                      u32 block_size,
                                                                      const LockWait& wait) {
  struct stat info {};
  vfio_user::UniqueFd file;
  if (vfio_user::is_given_fd(path)) {
    auto given = given_file(path, read_only);
    if (!given) return tl::unexpected(given.error());
    file = std::move(*given);
  } else if (stat(path.c_str(), &info) != 0) {
    return tl::unexpected(open_error(path, read_only, errno));
  }
  if (file && fstat(file.get(), &info) != 0) {
    return tl::unexpected(open_error(path, read_only, errno));
  }
  if (S_ISDIR(info.st_mode)) return tl::unexpected(open_error(path, read_only, EISDIR));
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    return tl::unexpected("'" + path + "' is neither a regular file nor a block device");
  }
  if (!file) {
    file.reset(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK));
  }
  if (!file) return tl::unexpected(open_error(path, read_only, errno));
  const int fd = file.release();
  std::unique_ptr<FileImage> image(new FileImage(fd, 0));

  if (!lock(fd, path, read_only, wait)) {
    if (errno == EAGAIN || errno == EACCES) {
      return tl::unexpected("image '" + path +
                            "' is in use: another process holds its lock; stop that server first" +
                            (read_only ? " (only read-only servers can share an image)" : ""));
    }
    return tl::unexpected("cannot lock image '" + path + "': " + std::strerror(errno));
  }

  u64 size = static_cast<u64>(info.st_size);
  if (S_ISBLK(info.st_mode) && ioctl(fd, BLKGETSIZE64, &size) != 0) {
    return tl::unexpected("cannot ask block device '" + path +
                          "' for its size: " + std::strerror(errno));
  }
  if (size == 0) {
    return tl::unexpected("image '" + path + "' is empty; give it a size with: truncate -s 1G '" +
                          path + "'");
  }
  if (size % block_size != 0) {
    const u64 rounded = (size / block_size + 1) * block_size;
    return tl::unexpected(
        "image '" + path + "' has " + std::to_string(size) +
        " bytes, which is no multiple of the block size " + std::to_string(block_size) +
        "; enlarge it with: truncate -s " + std::to_string(rounded) + " '" + path + "'" +
        (block_size == 4096 && size % 512 == 0 ? ", or use --block-size 512" : ""));
  }
  image->size_ = size;
  image->probe_direct();
  image->set_block_size(block_size);
  return image;
}

FileImage::~FileImage() {
  close(fd_);
}

void FileImage::probe_direct() {
  const int flags = fcntl(fd_, F_GETFL) & ~O_NONBLOCK;
  if (fcntl(fd_, F_SETFL, flags | O_DIRECT) != 0) {
    fcntl(fd_, F_SETFL, flags);
    return;
  }
  direct_ = true;
#ifdef STATX_DIOALIGN
  struct statx info {};
  if (statx(fd_, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN) != 0) {
    memory_alignment_ = info.stx_dio_mem_align;
    offset_alignment_ = info.stx_dio_offset_align;
    return;
  }
#endif
  // An older kernel does not tell: try.
  AlignedBuffer buffer;
  for (const u32 size : {512u, 4096u}) {
    if (size_ >= size &&
        pread(fd_, buffer.acquire(size).data(), size, 0) == static_cast<ssize_t>(size)) {
      memory_alignment_ = offset_alignment_ = size;
      return;
    }
  }
}

void FileImage::set_block_size(u32 bytes) {
  const bool possible = memory_alignment_ != 0 && offset_alignment_ != 0 &&
                        offset_alignment_ <= bytes && memory_alignment_ <= 4096;
  const int flags = fcntl(fd_, F_GETFL) & ~(O_DIRECT | O_NONBLOCK);
  direct_ = possible && fcntl(fd_, F_SETFL, flags | O_DIRECT) == 0;
  if (!direct_) fcntl(fd_, F_SETFL, flags);
}

u64 FileImage::allocated() const {
  struct stat info {};
  if (fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) return size_;
  return std::min(size_, static_cast<u64>(info.st_blocks) * 512);
}

}  // namespace outboard::nvme
