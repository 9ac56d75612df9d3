#include "vmm/box/filter.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace outboard::box {
namespace {

using Context = std::unique_ptr<void, decltype(&seccomp_release)>;

tl::unexpected<std::string> failed(const std::string& what, int error) {
  return tl::unexpected(what + ": " + std::strerror(error < 0 ? -error : error));
}

// libseccomp before 2.6 writes to descriptors only.
tl::expected<std::vector<sock_filter>, std::string> program_of(scmp_filter_ctx context) {
  const int file = ::memfd_create("seccomp-filter", MFD_CLOEXEC);
  if (file < 0) return failed("memfd_create", errno);
  std::vector<sock_filter> program;
  int error = -seccomp_export_bpf(context, file);
  struct stat status {};
  if (error == 0 && ::fstat(file, &status) != 0) error = errno;
  if (error == 0) {
    program.resize(static_cast<std::size_t>(status.st_size) / sizeof(sock_filter));
    const auto size = program.size() * sizeof(sock_filter);
    if (::pread(file, program.data(), size, 0) != static_cast<ssize_t>(size)) error = EIO;
  }
  ::close(file);
  if (error != 0) return failed("seccomp_export_bpf", error);
  return program;
}

}  // namespace

tl::expected<Filter, std::string> Filter::compile(const CallRules& rules, const char* first) {
  const Context context(seccomp_init(SCMP_ACT_TRAP), &seccomp_release);
  if (!context) return failed("seccomp_init", ENOMEM);
  seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  std::set<int> allowed;
  for (const CallRule& rule : rules) {
    const int number = seccomp_syscall_resolve_name(rule.call);
    if (number == __NR_SCMP_ERROR) {
      return tl::unexpected("libseccomp knows no system call '" + std::string(rule.call) + "'");
    }
    if (number < 0) continue;  // of other architectures
    std::vector<scmp_arg_cmp> checks;
    for (const ArgumentCheck& check : rule.checks) {
      checks.push_back({check.argument, SCMP_CMP_MASKED_EQ, check.mask, check.value});
    }
    const std::uint32_t action =
        rule.error == 0 ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(static_cast<std::uint32_t>(rule.error));
    const int error = seccomp_rule_add_array(context.get(), action, number,
                                             static_cast<unsigned>(checks.size()), checks.data());
    // The same rule twice, which libseccomp finds out: two groups of rules may share a call.
    if (error != 0 && error != -EEXIST) {
      return failed("the rule for '" + std::string(rule.call) + "'", error);
    }
    if (rule.error == 0) allowed.insert(number);
  }
  // Of a call without a rule libseccomp 2.5 makes a filter that forbids everything (seen on arm64).
  if (const int number = seccomp_syscall_resolve_name(first); allowed.contains(number)) {
    constexpr std::uint8_t kFirst = 255;
    seccomp_syscall_priority(context.get(), number, kFirst);
  }
  auto program = program_of(context.get());
  if (!program) return tl::unexpected(program.error());
  Filter filter;
  filter.program_ = std::move(*program);
  filter.calls_ = allowed.size();
  return filter;
}

int Filter::install() const {
  sock_fprog program{};
  program.len = static_cast<unsigned short>(program_.size());
  program.filter = const_cast<sock_filter*>(program_.data());
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0U, &program) == 0 ? 0 : errno;
}

int filters_missing() {
  const std::uint32_t action = SECCOMP_RET_TRAP;
  return ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0U, &action) == 0 ? 0 : errno;
}

}  // namespace outboard::box
