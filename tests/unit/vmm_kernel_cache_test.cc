// Kept unpacked kernels: what the next start takes from them, and what it does not.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/kernel.h"
#include "tests/unit/boot_samples.h"
#include "vmm/kernel_cache.h"

namespace outboard::vmm {
namespace {

namespace fs = std::filesystem;
namespace samples = boot::samples;
using samples::Bytes;

constexpr std::size_t kRam = std::size_t{4} << 20;
constexpr std::size_t kCodeAt = 0x100000;

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "outboard-cache.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
    fs::create_directory(path / "kept");
    write_kernel("vmlinuz");
  }
  ~Folder() { fs::remove_all(path); }

  void write_kernel(const std::string& name) const {
    const Bytes elf = samples::elf();
    const Bytes file = samples::bzimage(samples::pack_lz4(elf), elf.size());
    std::ofstream(path / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(file.data()),
               static_cast<std::streamsize>(file.size()));
  }
  std::string kept() const { return (path / "kept").string(); }
  std::vector<fs::path> entries() const {
    std::vector<fs::path> all;
    for (const auto& entry : fs::directory_iterator(path / "kept")) all.push_back(entry.path());
    return all;
  }
  fs::path only_entry() const {
    REQUIRE(entries().size() == 1);
    return entries().front();
  }

  fs::path path;
};

struct Start {
  explicit Start(const Folder& folder, const std::string& name = "vmlinuz")
      : kernel(::open((folder.path / name).c_str(), O_RDONLY | O_CLOEXEC)),
        cache(folder.kept(), kernel.get()) {
    REQUIRE(kernel);
  }

  // The first byte of the kernel's code as the guest gets it.
  std::byte load() {
    const MappedFile file(kernel.get());
    Bytes ram = samples::dirty_ram(kRam);
    const auto loaded = boot::load_kernel(file.bytes(), ram, boot::Entry::automatic, &cache);
    REQUIRE_MESSAGE(loaded.has_value(), loaded.error().message);
    CHECK(loaded->compression == "lz4");
    return ram[kCodeAt];
  }

  vfio_user::UniqueFd kernel;
  KernelCache cache;
};

std::byte real_byte() {
  return samples::code(1).front();
}
std::byte other_byte() {
  return ~real_byte();
}

// What tells a kept kernel from one that was unpacked anew.
void mark(const fs::path& kept) {
  const Bytes elf = samples::elf();
  const auto at = elf.size() - samples::ElfOptions{}.code_size;
  std::fstream file(kept, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(other_byte()));
  REQUIRE(file.good());
}

}  // namespace

TEST_CASE("an unpacked kernel is kept, and the next start takes it from there") {
  const Folder folder;
  CHECK(Start(folder).load() == real_byte());
  mark(folder.only_entry());
  CHECK(Start(folder).load() == other_byte());
}

TEST_CASE("a kernel file that has changed is unpacked again") {
  const Folder folder;
  Start(folder).load();
  mark(folder.only_entry());
  fs::remove(folder.path / "vmlinuz");
  folder.write_kernel("vmlinuz");
  CHECK(Start(folder).load() == real_byte());
  CHECK(folder.entries().size() == 2);
}

TEST_CASE("a kept kernel that others may have written is not used") {
  const Folder folder;
  Start(folder).load();
  mark(folder.only_entry());
  fs::permissions(folder.only_entry(), fs::perms::group_write, fs::perm_options::add);
  CHECK(Start(folder).load() == real_byte());
}

TEST_CASE("a kept kernel that is a link is not used") {
  const Folder folder;
  Start(folder).load();
  const fs::path kept = folder.only_entry();
  mark(kept);
  fs::rename(kept, folder.path / "elsewhere");
  fs::create_symlink(folder.path / "elsewhere", kept);
  CHECK(Start(folder).load() == real_byte());
}

TEST_CASE("a kept kernel that is damaged is replaced") {
  const Folder folder;
  Start(folder).load();
  fs::resize_file(folder.only_entry(), 100);
  CHECK(Start(folder).load() == real_byte());
  mark(folder.only_entry());
  CHECK(Start(folder).load() == other_byte());
}

TEST_CASE("a guest's reboot needs no path: the kept kernel stays open") {
  const Folder folder;
  Start first(folder);
  first.load();
  mark(folder.only_entry());
  fs::remove_all(folder.kept());
  CHECK(first.load() == other_byte());
}

TEST_CASE("no more than four kernels are kept, the newest ones") {
  const Folder folder;
  for (int i = 0; i < 7; ++i) {
    const std::string name = "vmlinuz" + std::to_string(i);
    folder.write_kernel(name);
    Start(folder, name).load();
  }
  CHECK(folder.entries().size() == KernelCache::kKept);
  for (const fs::path& kept : folder.entries()) mark(kept);
  CHECK(Start(folder, "vmlinuz6").load() == other_byte());
}

TEST_CASE("without a folder nothing is kept, and the kernel starts all the same") {
  const Folder folder;
  const vfio_user::UniqueFd kernel(::open((folder.path / "vmlinuz").c_str(), O_RDONLY | O_CLOEXEC));
  KernelCache none("", kernel.get());
  const MappedFile file(kernel.get());
  Bytes ram = samples::dirty_ram(kRam);
  CHECK(boot::load_kernel(file.bytes(), ram, boot::Entry::automatic, &none).has_value());
  CHECK(folder.entries().empty());
}

TEST_CASE(
    "the user's folder: XDG_CACHE_HOME before HOME, made where missing, refused if others may "
    "write there") {
  const Folder folder;
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  const std::string before = cache != nullptr ? cache : "";
  ::setenv("XDG_CACHE_HOME", (folder.path / "xdg").c_str(), 1);
  const std::string made = KernelCache::user_folder();
  CHECK(made == (folder.path / "xdg/outboard/kernels").string());
  CHECK(fs::is_directory(made));
  fs::permissions(made, fs::perms::others_write, fs::perm_options::add);
  CHECK(KernelCache::user_folder().empty());
  if (before.empty()) {
    ::unsetenv("XDG_CACHE_HOME");
  } else {
    ::setenv("XDG_CACHE_HOME", before.c_str(), 1);
  }
}

}  // namespace outboard::vmm
