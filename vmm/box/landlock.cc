#include "vmm/box/landlock.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace outboard::box {
namespace {

// <linux/landlock.h> is older than some of what the running kernel may know. Rights over files, by
// the ABI version that brought them.
constexpr std::uint64_t kRead = 1ULL << 2 | 1ULL << 3;  // files, folders
constexpr std::uint64_t kRemoveFile = 1ULL << 5;
constexpr std::uint64_t kMakeRegular = 1ULL << 8;
constexpr std::uint64_t kRights1 = (1ULL << 13) - 1;  // execute … make symbolic links
constexpr std::uint64_t kRefer2 = 1ULL << 13;         // rename from one folder to another
constexpr std::uint64_t kTruncate3 = 1ULL << 14;
constexpr std::uint64_t kDeviceIoctl5 = 1ULL << 15;
constexpr std::uint64_t kTcp4 = 0x3;              // bind, connect
constexpr std::uint64_t kAbstractSockets6 = 0x1;  // to those of other domains

struct RulesetAttributes {
  std::uint64_t files = 0;
  std::uint64_t net = 0;     // from version 4 on
  std::uint64_t scoped = 0;  // from version 6 on
};
constexpr std::uint32_t kVersionFlag = 1;
constexpr int kPathBeneath = 1;
struct [[gnu::packed]] PathBeneath {
  std::uint64_t allowed = 0;
  std::int32_t folder = -1;
};
static_assert(sizeof(PathBeneath) == 12);

RulesetAttributes everything(int version) {
  RulesetAttributes all;
  all.files = kRights1;
  if (version >= 2) all.files |= kRefer2;
  if (version >= 3) all.files |= kTruncate3;
  if (version >= 4) all.net = kTcp4;
  if (version >= 5) all.files |= kDeviceIoctl5;
  if (version >= 6) all.scoped = kAbstractSockets6;
  return all;
}

std::size_t size_of_attributes(int version) {
  if (version >= 6) return sizeof(RulesetAttributes);
  return version >= 4 ? offsetof(RulesetAttributes, scoped) : offsetof(RulesetAttributes, net);
}

}  // namespace

int landlock_version() {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, kVersionFlag);
  return version > 0 ? static_cast<int>(version) : 0;
}

tl::expected<FileRules, std::string> FileRules::create(const std::vector<WritableFolder>& folders,
                                                       int version, bool readable) {
  const RulesetAttributes handled = everything(version);
  FileRules rules(static_cast<int>(
      ::syscall(SYS_landlock_create_ruleset, &handled, size_of_attributes(version), 0)));
  if (rules.ruleset_ < 0) {
    return tl::unexpected(std::string("landlock_create_ruleset: ") + std::strerror(errno));
  }
  for (const WritableFolder& folder : folders) {
    if (const int error = rules.allow(folder.path, kRemoveFile | kMakeRegular); error != 0) {
      return tl::unexpected(folder.path + ": " + std::strerror(error));
    }
  }
  if (const int error = readable ? rules.allow("/", kRead) : 0; error != 0) {
    return tl::unexpected(std::string("/: ") + std::strerror(error));
  }
  return rules;
}

int FileRules::allow(const std::string& folder, std::uint64_t rights) const {
  PathBeneath rule;
  rule.allowed = rights;
  rule.folder = ::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (rule.folder < 0) return errno;
  const bool added = ::syscall(SYS_landlock_add_rule, ruleset_, kPathBeneath, &rule, 0) == 0;
  const int error = added ? 0 : errno;
  ::close(rule.folder);
  return error;
}

FileRules::FileRules(FileRules&& other) noexcept : ruleset_(std::exchange(other.ruleset_, -1)) {}

FileRules& FileRules::operator=(FileRules&& other) noexcept {
  std::swap(ruleset_, other.ruleset_);
  return *this;
}

FileRules::~FileRules() {
  if (ruleset_ >= 0) ::close(ruleset_);
}

int FileRules::install() const {
  return ::syscall(SYS_landlock_restrict_self, ruleset_, 0) == 0 ? 0 : errno;
}

}  // namespace outboard::box
