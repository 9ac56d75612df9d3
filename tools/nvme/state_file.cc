#include "tools/nvme/state_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>
#include <optional>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/nvme/doorbells.h"
#include "tools/nvme/namespaces.h"

namespace outboard::nvme {
namespace {

using vfio_user::UniqueFd;

constexpr u64 kMagic = 0x4554'4154'534e'424f;  // "OBNSTATE" in memory
constexpr u32 kLayoutVersion = 1;
constexpr u64 kStateAt = reg::doorbells + kDoorbellPageSize;
constexpr u64 kPage = 4096;
constexpr u64 kFileSize = (kStateAt + sizeof(SavedState) + kPage - 1) / kPage * kPage;
static_assert(kFileSize >= kBar0Size);

struct Header {
  u64 magic;
  u32 version;
  u32 namespaces;
  u64 file_size;
  u64 layout;
  std::array<u8, 16> id;
  u64 controller;
  std::array<u64, kMaxNamespaces> disks;
  u64 sum;  // of what is above
};
static_assert(sizeof(Header) <= kPage);

// Whatever moves a field of SavedState without a new version number.
constexpr u64 layout() {
  u64 hash = sizeof(SavedState);
  for (const u64 part :
       {sizeof(ControllerState), sizeof(SqState), sizeof(CqState), sizeof(FeatureValues),
        sizeof(InFlight), sizeof(SavedWindow), offsetof(SavedState, before),
        offsetof(SavedState, windows), offsetof(SavedState, in_flight)}) {
    hash = hash * 0x100'0000'01b3 + part;
  }
  return hash;
}

u64 sum_of(const Header& header) {
  return stable_hash({reinterpret_cast<const char*>(&header), offsetof(Header, sum)});
}

std::string quoted(const std::string& path) {
  return "state file '" + path + "'";
}
std::string remove_it(const std::string& path) {
  return "remove it and let the guest begin with a fresh controller: rm '" + path + "'";
}
tl::unexpected<std::string> system_error(const std::string& what) {
  return tl::unexpected(what + ": " + std::strerror(errno));
}

bool lock(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool same_file(int fd, const std::string& path) {
  struct stat opened {};
  struct stat named {};
  return fstat(fd, &opened) == 0 && stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

Header make_header(const StateIdentity& identity) {
  Header header{};
  header.magic = kMagic;
  header.version = kLayoutVersion;
  header.namespaces = static_cast<u32>(identity.namespaces.size());
  header.file_size = kFileSize;
  header.layout = layout();
  header.controller = identity.controller;
  std::copy(identity.namespaces.begin(), identity.namespaces.end(), header.disks.begin());
  if (getrandom(header.id.data(), header.id.size(), 0) != static_cast<ssize_t>(header.id.size())) {
    const u64 words[] = {static_cast<u64>(getpid()), static_cast<u64>(time(nullptr))};
    std::memcpy(header.id.data(), words, sizeof(words));
  }
  header.sum = sum_of(header);
  return header;
}

// Appears under its name whole and locked, or not at all. Null: another one was there first.
tl::expected<UniqueFd, std::string> create(const std::string& path, const StateIdentity& identity) {
  const std::string draft = path + "." + std::to_string(getpid());
  unlink(draft.c_str());
  UniqueFd fd(::open(draft.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) {
    return system_error(quoted(path) +
                        " cannot be made; name a file in a directory that exists "
                        "and is writable, such as the service's RuntimeDirectory");
  }
  const auto give_up = [&]() -> tl::unexpected<std::string> {
    const int error = errno;
    unlink(draft.c_str());
    errno = error;
    return system_error(quoted(path) + " cannot be made");
  };
  // Every byte has its place: a file system that fills up later cannot hurt.
  errno = posix_fallocate(fd.get(), 0, static_cast<off_t>(kFileSize));
  if (errno != 0) return give_up();
  const Header header = make_header(identity);
  const auto state = std::make_unique<SavedState>();
  if (pwrite(fd.get(), &header, sizeof(header), 0) != static_cast<ssize_t>(sizeof(header)) ||
      pwrite(fd.get(), state.get(), sizeof(*state), kStateAt) !=
          static_cast<ssize_t>(sizeof(*state)) ||
      !lock(fd.get())) {
    return give_up();
  }
  if (renameat2(AT_FDCWD, draft.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) == 0) return fd;
  if (errno == EINVAL && link(draft.c_str(), path.c_str()) == 0) {  // no such rename there
    unlink(draft.c_str());
    return fd;
  }
  if (errno != EEXIST) return give_up();
  unlink(draft.c_str());
  return UniqueFd();
}

std::optional<std::string> refusal(const Header& header, u64 size, const std::string& path,
                                   const StateIdentity& identity) {
  if (size < kPage || header.magic != kMagic) {
    return quoted(path) + " is no state of outboard-nvme; name another file, or remove this one";
  }
  if (header.version != kLayoutVersion || header.layout != layout() || size != kFileSize ||
      header.file_size != kFileSize) {
    return quoted(path) +
           " has another layout: it is of another version of outboard-nvme; run that"
           " one, or " +
           remove_it(path);
  }
  if (header.sum != sum_of(header)) {
    return quoted(path) + " is damaged; " + remove_it(path);
  }
  std::string differs;
  if (header.controller != identity.controller) {
    differs = "the serial number, --queues or --doorbells";
  } else if (header.namespaces != identity.namespaces.size()) {
    differs = "the number of namespaces";
  } else {
    for (u32 i = 0; i < identity.namespaces.size() && differs.empty(); ++i) {
      if (header.disks[i] != identity.namespaces[i]) differs = "namespace " + std::to_string(i + 1);
    }
  }
  if (differs.empty()) return {};
  return quoted(path) + " is of another disk: what differs is " + differs +
         "; start with what it was made for, or " + remove_it(path);
}

}  // namespace

u64 boot_hash() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  std::getline(file, text);
  return stable_hash(text);
}

tl::expected<std::unique_ptr<StateFile>, std::string> StateFile::open(
    const std::string& path, const StateIdentity& identity, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  UniqueFd fd;
  bool made = false;
  while (!fd) {
    fd.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd && errno != ENOENT) return system_error(quoted(path) + " cannot be opened");
    if (!fd) {
      auto fresh = create(path, identity);
      if (!fresh) return tl::unexpected(fresh.error());
      fd = std::move(*fresh);
      made = static_cast<bool>(fd);
      continue;
    }
    // A process that was just killed may hold it for a moment yet.
    while (!lock(fd.get())) {
      if (errno != EAGAIN && errno != EACCES) return system_error(quoted(path) + ": no lock");
      if (std::chrono::steady_clock::now() >= deadline) {
        return tl::unexpected(quoted(path) +
                              " is in use by another process; stop that server first");
      }
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    if (!same_file(fd.get(), path)) fd.reset();  // removed or replaced meanwhile
  }
  struct stat info {};
  Header header{};
  if (fstat(fd.get(), &info) != 0) return system_error(quoted(path) + " cannot be looked at");
  if (!S_ISREG(info.st_mode)) return tl::unexpected(quoted(path) + " is no regular file");
  const ssize_t got = pread(fd.get(), &header, sizeof(header), 0);
  const u64 size = got == static_cast<ssize_t>(sizeof(header)) ? static_cast<u64>(info.st_size) : 0;
  if (auto wrong = refusal(header, size, path, identity)) return tl::unexpected(std::move(*wrong));

  void* base = mmap(nullptr, kFileSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return system_error(quoted(path) + " cannot be mapped");
  std::unique_ptr<StateFile> file(new StateFile(std::move(fd), static_cast<std::byte*>(base)));
  // Trivially copyable, and read by nobody before it is checked.
  file->state_ = std::launder(reinterpret_cast<SavedState*>(file->base_ + kStateAt));
  file->left_over_ = !made && file->state_->attached != 0 && file->state_->windows_lost == 0 &&
                     file->state_->boot == boot_hash();
  char digits[33];
  for (std::size_t i = 0; i < header.id.size(); ++i) {
    std::snprintf(digits + 2 * i, 3, "%02x", header.id[i]);
  }
  file->id_ = digits;
  if (!file->left_over_) file->forget();
  return file;
}

StateFile::~StateFile() {
  munmap(base_, kFileSize);
}

void StateFile::forget() {
  left_over_ = false;
  state_->attached = 0;
  keep_order();
  std::memset(base_ + reg::doorbells, 0, kDoorbellPageSize);
  *state_ = SavedState{};
  state_->boot = boot_hash();
}

tl::expected<UniqueFd, std::string> StateFile::doorbell_file() const {
  const std::string self = "/proc/self/fd/" + std::to_string(fd_.get());
  UniqueFd fd(::open(self.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return system_error("the state file cannot be opened again through /proc");
  return fd;
}

}  // namespace outboard::nvme
