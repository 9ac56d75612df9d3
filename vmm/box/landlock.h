#pragma once

// Which files a thread may still reach by path, by Landlock: none but those in the folders given.
// Best effort: what the running kernel knows of it, which is nothing before Linux 5.13.

#include <cstdint>
#include <string>
#include <vector>

#include <tl/expected.hpp>

namespace outboard::box {

// A folder in which a thread may put files in place and remove them. It may open none.
struct WritableFolder {
  std::string path;
  friend bool operator==(const WritableFolder&, const WritableFolder&) = default;
};

// The version of the kernel's Landlock ABI; 0: it has none, or a container keeps it away.
[[nodiscard]] int landlock_version();

// Also keeps threads from TCP and from abstract Unix sockets of others, where the kernel can.
class FileRules final {
 public:
  // `version` is landlock_version(), and not 0. With `readable` every file may still be read: the
  // reports of sanitizers need it. Errors: a folder that cannot be opened.
  [[nodiscard]] static tl::expected<FileRules, std::string> create(
      const std::vector<WritableFolder>& folders, int version, bool readable = false);

  FileRules(FileRules&& other) noexcept;
  FileRules& operator=(FileRules&& other) noexcept;
  ~FileRules();

  // For the calling thread and those that it starts from now on, for good. The thread has
  // no_new_privs. 0 or an errno. Any thread.
  [[nodiscard]] int install() const;

 private:
  explicit FileRules(int ruleset) : ruleset_(ruleset) {}
  int allow(const std::string& folder, std::uint64_t rights) const;  // 0 or an errno

  int ruleset_;
};

}  // namespace outboard::box
