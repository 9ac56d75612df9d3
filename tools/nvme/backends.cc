#include "tools/nvme/backends.h"

#include <cstdio>
#include <cstdlib>

#include <sys/stat.h>

#include "tools/nvme/file_backends.h"
#include "tools/nvme/memory_backend.h"
#include "tools/nvme/null_backend.h"
#include "vfio_user/given_fds.h"

namespace outboard::nvme {
namespace {

constexpr unsigned kThreads = 4;

tl::expected<std::unique_ptr<Backend>, std::string> open_file(
    const NamespaceOptions& ns, bool threads, std::vector<std::string>& remarks,
    const LockWait& wait, const std::function<void()>& started) {
  auto image = FileImage::open(ns.path, ns.read_only, ns.block_size, wait);
  if (!image) return tl::unexpected(image.error());
  std::unique_ptr<Backend> backend;
  std::string why;
  if (!threads) backend = make_uring_backend(*image, why);
  if (!backend) {
    if (!threads) {
      remarks.push_back("io_uring is refused (" + why + "); image '" + ns.path + "' is served by " +
                        std::to_string(kThreads) + " threads");
    }
    backend = make_thread_backend(std::move(*image), kThreads, started);
  }
  return backend;
}

std::string real_path(const std::string& path) {
  if (const auto given = vfio_user::parse_given_fd(path)) {
    struct stat info {};
    char* link = realpath(("/proc/self/fd/" + std::to_string(given->fd)).c_str(), nullptr);
    if (link == nullptr && fstat(given->fd, &info) == 0) {
      return std::to_string(info.st_dev) + ':' + std::to_string(info.st_ino);
    }
    const std::string result = link == nullptr ? path : link;
    std::free(link);
    return result;
  }
  char* real = realpath(path.c_str(), nullptr);
  if (real == nullptr) return path;
  std::string result = real;
  std::free(real);
  return result;
}

}  // namespace

tl::expected<std::vector<Namespace>, std::string> open_namespaces(
    const Options& options, const std::string& serial, std::vector<std::string>& remarks,
    const LockWait& wait, const std::function<void()>& started) {
  std::vector<Namespace> all;
  for (const NamespaceOptions& wanted : options.namespaces) {
    Namespace ns;
    switch (wanted.kind) {
      case NamespaceOptions::Kind::file: {
        auto backend = open_file(wanted, options.threads, remarks, wait, started);
        if (!backend) return tl::unexpected(backend.error());
        ns.backend = std::move(*backend);
        ns.buffered = wanted.read_only && !options.state.empty();
        break;
      }
      case NamespaceOptions::Kind::memory: {
        auto backend = MemoryBackend::create(wanted.size);
        if (!backend) return tl::unexpected(backend.error());
        ns.backend = std::move(*backend);
        break;
      }
      case NamespaceOptions::Kind::null:
        ns.backend = std::make_unique<NullBackend>(wanted.size);
        break;
    }
    ns.block_shift = wanted.block_size == 4096 ? 12 : 9;
    ns.read_only = wanted.read_only;
    ns.names = NamespaceNames::derive(serial, static_cast<u32>(all.size() + 1));
    all.push_back(std::move(ns));
  }
  return all;
}

StateIdentity state_identity(const Options& options, const std::string& serial) {
  StateIdentity identity;
  identity.controller = stable_hash(serial + '/' + std::to_string(options.queues) + '/' +
                                    std::to_string(static_cast<int>(options.doorbells)));
  for (const NamespaceOptions& ns : options.namespaces) {
    struct stat info {};
    u64 size = ns.size;
    if (ns.kind == NamespaceOptions::Kind::file && stat(ns.path.c_str(), &info) == 0) {
      size = static_cast<u64>(info.st_size);
    }
    std::string key;
    for (const u64 part : {static_cast<u64>(ns.kind), size, u64{ns.block_size},
                           u64{ns.read_only ? 1u : 0u}, static_cast<u64>(info.st_dev),
                           static_cast<u64>(info.st_ino), static_cast<u64>(info.st_rdev)}) {
      key += std::to_string(part) + '/';
    }
    identity.namespaces.push_back(stable_hash(key));
  }
  return identity;
}

std::string derive_serial(const Options& options) {
  std::string key;
  for (const NamespaceOptions& ns : options.namespaces) {
    if (ns.kind == NamespaceOptions::Kind::file) key += real_path(ns.path) + '\n';
  }
  if (key.empty()) key = real_path(options.socket);
  char serial[24];
  std::snprintf(serial, sizeof(serial), "OB%016llx",
                static_cast<unsigned long long>(stable_hash(key)));
  return serial;
}

}  // namespace outboard::nvme
