// Files, descriptors, limits and capabilities of a boxed process (issue 5, item 7).
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "tests/unit/boxed_child.h"
#include "vmm/box/landlock.h"
#include "vmm/box/process.h"

using namespace outboard::box;
using namespace outboard::box::test;
namespace fs = std::filesystem;

namespace {

void must(bool truth, int status) {
  if (!truth) ::_exit(status);
}

class Folder {
 public:
  Folder() {
    std::string path = "/tmp/outboard-box.XXXXXX";
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    path_ = path;
    std::ofstream(*this / "file") << "text";
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string operator/(const char* name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("Landlock: files are put in place and removed in the given folder, and nowhere else") {
  const int version = landlock_version();
  if (version == 0) {
    MESSAGE("SKIPPED: this kernel has no Landlock");
    return;
  }
  const Folder inside;
  const Folder outside;
  const std::string draft = inside / "draft";
  std::ofstream{draft} << "text";
  const std::string place = inside / "file";
  const std::string foreign = outside / "file";
  const std::string gone = inside / "gone";
  std::ofstream{gone} << "text";
  const auto child = [&](const std::vector<WritableFolder>& folders, bool may_place) {
    auto files = FileRules::create(folders, version);
    REQUIRE_MESSAGE(files, files.error());
    return in_child([&] {
      ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      must(files->install() == 0, 1);
      must(::open(foreign.c_str(), O_RDONLY) == -1 && errno == EACCES, 2);
      must(::open(place.c_str(), O_RDONLY) == -1 && errno == EACCES, 3);
      must(::open("/etc/passwd", O_RDONLY) == -1 && errno == EACCES, 4);
      must(::open(foreign.c_str(), O_WRONLY | O_CREAT, 0600) == -1 && errno == EACCES, 5);
      must(::unlink(foreign.c_str()) == -1 && errno == EACCES, 6);
      must(::rename(draft.c_str(), foreign.c_str()) == -1, 7);
      if (may_place) {
        must(::rename(draft.c_str(), place.c_str()) == 0, 8);
        must(::unlink(gone.c_str()) == 0, 9);
      } else {
        must(::rename(draft.c_str(), place.c_str()) == -1 && errno == EACCES, 10);
      }
    });
  };
  CHECK(child({}, false).status == 0);
  CHECK(fs::exists(draft));
  CHECK(child({{inside.path()}}, true).status == 0);
  CHECK_FALSE(fs::exists(draft));
  CHECK(fs::exists(foreign));
}

TEST_CASE("Landlock: a folder that is not there is named") {
  if (landlock_version() == 0) return;
  const auto files = FileRules::create({{"/nonexistent/folder"}}, landlock_version());
  REQUIRE_FALSE(files);
  CHECK(files.error().find("/nonexistent/folder") != std::string::npos);
}

TEST_CASE("inherited descriptors are closed, but those to keep and those marked close-on-exec") {
  CHECK(in_child([] {
          const int inherited = ::open("/dev/null", O_RDONLY);
          const int far = ::fcntl(inherited, F_DUPFD, 300);
          const int kept = ::dup(inherited);
          const int own = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
          must(close_inherited(std::array{kept}) >= 2, 1);
          must(::fcntl(inherited, F_GETFD) == -1, 2);
          must(::fcntl(far, F_GETFD) == -1, 3);
          must(::fcntl(kept, F_GETFD) == 0, 4);
          must(::fcntl(own, F_GETFD) == FD_CLOEXEC, 5);
          must(::fcntl(2, F_GETFD) >= 0, 6);
        }).status == 0);
}

TEST_CASE("no core dumps, and no file grows beyond its limit") {
  const Folder folder;
  CHECK(in_child([&] {
          forbid_core_dumps();
          limit_file_size(1 << 20);
          rlimit limit{};
          ::getrlimit(RLIMIT_CORE, &limit);
          must(limit.rlim_max == 0, 1);
          const int file = ::open((folder / "big").c_str(), O_WRONLY | O_CREAT, 0600);
          must(::ftruncate(file, 1 << 20) == 0, 2);
          must(::ftruncate(file, (1 << 20) + 1) == -1 && errno == EFBIG, 3);
          must(::pwrite(file, "x", 1, 1 << 20) == -1 && errno == EFBIG, 4);
        }).status == 0);
}

TEST_CASE("capabilities are dropped but for those to keep, and cannot be had again") {
  constexpr std::uint64_t kKept = std::uint64_t{1} << CAP_DAC_OVERRIDE;
  CHECK(in_child([] {
          must(keep_capabilities(kKept) == 0, 1);
          __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
          std::array<__user_cap_data_struct, 2> data{};
          must(::syscall(SYS_capget, &header, data.data()) == 0, 2);
          must((data[0].permitted & ~kKept) == 0 && data[1].permitted == 0, 3);
          must(data[0].effective == data[0].permitted, 4);
          data[0].permitted |= 1U << CAP_SYS_ADMIN;
          must(::syscall(SYS_capset, &header, data.data()) == -1 && errno == EPERM, 5);
          if (::geteuid() == 0) must(::chroot("/") == -1 && errno == EPERM, 6);
        }).status == 0);
}
