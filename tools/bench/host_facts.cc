#include "tools/bench/host_facts.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "tools/bench/private_folder.h"
#include "vfio_user/unique_fd.h"

namespace outboard::bench {
namespace {

// The value of the first "NAME : VALUE" of /proc/cpuinfo.
std::string cpu_field(const std::string& info, const std::string& name) {
  std::size_t at = info.find(name);
  if (at == std::string::npos) return {};
  at = info.find(": ", at);
  if (at == std::string::npos) return {};
  return info.substr(at + 2, info.find('\n', at) - at - 2);
}

std::string cpu_list() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return "unknown";
  std::string list;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    int last = cpu;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
    if (!list.empty()) list += ',';
    list += last == cpu ? std::to_string(cpu) : fmt::format("{}-{}", cpu, last);
    cpu = last;
  }
  return list;
}

// What stands in brackets: "always [madvise] never".
std::string chosen(const std::string& text) {
  const std::size_t open = text.find('[');
  if (open == std::string::npos) return {};
  return text.substr(open + 1, text.find(']', open) - open - 1);
}

}  // namespace

HostFacts host_facts() {
  HostFacts facts;
  const std::string info = read_file("/proc/cpuinfo");
  facts.cpu_model = cpu_field(info, "model name");
  facts.cpus = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  facts.placement = cpu_list();
  utsname name{};
  if (::uname(&name) == 0) facts.kernel = name.release;
  facts.page_size = fmt::format("{} KiB", ::sysconf(_SC_PAGESIZE) / 1024);
  if (const auto thp = chosen(read_file("/sys/kernel/mm/transparent_hugepage/enabled"));
      !thp.empty())
    facts.page_size += ", THP " + thp;
  const std::string flags = cpu_field(info, "flags") + " ";
  const bool extensions =
      flags.find(" svm ") != std::string::npos || flags.find(" vmx ") != std::string::npos;
  const vfio_user::UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  facts.kvm = !kvm ? "none" : extensions ? "hardware" : "software";
  if (flags.find(" hypervisor ") != std::string::npos) facts.hypervisor = "virtual machine";
  double load = 0;
  if (::getloadavg(&load, 1) == 1) facts.load = load;
  return facts;
}

std::string to_string(const HostFacts& facts) {
  return fmt::format("{}, {} CPUs (may use {}){}, Linux {}, pages of {}, {} KVM, load {:.1f}",
                     facts.cpu_model, facts.cpus, facts.placement,
                     facts.hypervisor.empty() ? "" : ", a " + facts.hypervisor, facts.kernel,
                     facts.page_size, facts.kvm, facts.load);
}

}  // namespace outboard::bench
