#include "vfio_user/given_fds.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

namespace outboard::vfio_user {

namespace {

constexpr std::string_view kPrefix = "fd:";
constexpr int kFirst = 3;  // SD_LISTEN_FDS_START; below are the standard streams
constexpr int kMostPassed = 4096;

std::optional<int> number_of(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return {};
  return value;
}

void close_on_exec(int fd) {
  if (const int flags = ::fcntl(fd, F_GETFD); flags >= 0) ::fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
}

struct Parts {
  std::string name, file;
};

Parts parts_of(std::string_view text) {
  text.remove_prefix(kPrefix.size());
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return {std::string(text), {}};
  return {std::string(text.substr(0, slash)), std::string(text.substr(slash + 1))};
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

}  // namespace

std::string GivenFd::text() const {
  std::string text = std::string(kPrefix) + std::to_string(fd);
  if (!file.empty()) text.append("/").append(file);
  return text;
}

bool is_given_fd(std::string_view text) {
  return text.starts_with(kPrefix);
}

std::optional<GivenFd> parse_given_fd(std::string_view text) {
  if (!is_given_fd(text)) return {};
  Parts parts = parts_of(text);
  const auto number = number_of(parts.name);
  if (!number || *number < kFirst) return {};
  return GivenFd{*number, std::move(parts.file)};
}

Result<UniqueFd> take_given_fd(int fd) {
  if (::fcntl(fd, F_GETFD) < 0) {
    return fail(Error::Kind::invalid, EBADF,
                GivenFd{fd, {}}.text() + " is not open: whoever starts this program must pass it");
  }
  close_on_exec(fd);
  return UniqueFd(fd);
}

Result<UniqueFd> connect_unix_at(int directory, const std::string& file, Deadline deadline) {
  const std::string what = GivenFd{directory, {}}.text();
  const auto failed = [&](const std::string& why) {
    return fail(Error::Kind::invalid, errno, what + why);
  };
  struct stat status {};
  if (::fstat(directory, &status) != 0)
    return failed(" is not open: whoever starts this program must pass it");
  if (!S_ISDIR(status.st_mode)) {
    errno = ENOTDIR;
    return failed(" is no directory; pass the one with the socket, or a connected socket");
  }
  if (::unshare(CLONE_FS) != 0) return failed(": the thread gets no working directory of its own");
  const UniqueFd before(::open(".", O_PATH | O_CLOEXEC));
  if (!before || ::fchdir(directory) != 0) return failed(" cannot be entered");
  auto socket = connect_unix(file, deadline);
  if (::fchdir(before.get()) != 0) return failed(": there is no way back from it");
  return socket;
}

GivenFds GivenFds::from_environment() {
  const auto pid = number_of(variable("LISTEN_PID"));
  const auto count = number_of(variable("LISTEN_FDS"));
  const std::string list = variable("LISTEN_FDNAMES");
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  if (!pid || *pid != ::getpid() || !count || *count < 0 || *count > kMostPassed) return GivenFds();
  std::vector<std::string> names(static_cast<std::size_t>(*count), "unknown");
  std::size_t at = 0;
  for (std::size_t i = 0; i < names.size() && !list.empty() && at <= list.size(); ++i) {
    const std::size_t end = std::min(list.find(':', at), list.size());
    names[i] = list.substr(at, end - at);
    at = end + 1;
  }
  for (int i = 0; i < *count; ++i) close_on_exec(kFirst + i);
  return GivenFds(std::move(names));
}

Result<GivenFd> GivenFds::find(std::string_view text) const {
  const std::string what(text);
  const auto refuse = [&](const std::string& why) {
    return fail(Error::Kind::invalid, EINVAL, "'" + what + "': " + why);
  };
  if (!is_given_fd(text)) return refuse("a descriptor is written fd:NUMBER or fd:NAME");
  Parts parts = parts_of(text);
  if (text.ends_with('/')) return refuse("the name of a file must follow the directory");
  if (const auto number = number_of(parts.name)) {
    if (*number < kFirst) return refuse("0 to 2 are the standard streams; pass it as 3 or more");
    close_on_exec(*number);
    return GivenFd{*number, std::move(parts.file)};
  }
  const auto named = std::ranges::count(names_, parts.name);
  if (named == 0) {
    std::string passed;
    for (const std::string& name : names_) {
      passed += passed.empty() ? "those passed: " : ", ";
      passed += name;
    }
    if (passed.empty()) passed = "none was";
    return refuse("no descriptor of that name was passed (LISTEN_FDNAMES); " + passed);
  }
  if (named > 1) return refuse("several descriptors of that name were passed; give its number");
  const auto index = std::ranges::find(names_, parts.name) - names_.begin();
  return GivenFd{kFirst + static_cast<int>(index), std::move(parts.file)};
}

}  // namespace outboard::vfio_user
