#include "vmm/host_facts.h"

#include <sys/utsname.h>

#include "vmm/read_file.h"

namespace outboard::vmm {
namespace {

// What follows "key<tabs>: " in the first line that begins so.
std::string_view value_of(std::string_view text, std::string_view key) {
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    at = end + 1;
    const auto colon = line.find(':');
    if (colon == std::string_view::npos || !line.starts_with(key)) continue;
    if (line.substr(key.size(), colon - key.size()).find_first_not_of(" \t") !=
        std::string_view::npos) {
      continue;
    }
    const auto value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string_view::npos ? std::string_view() : line.substr(value);
  }
  return {};
}

bool has_word(std::string_view words, std::string_view word) {
  for (auto at = words.find(word); at != std::string_view::npos; at = words.find(word, at + 1)) {
    const auto end = at + word.size();
    const bool begins = at == 0 || words[at - 1] == ' ';
    if (begins && (end == words.size() || words[end] == ' ')) return true;
  }
  return false;
}

}  // namespace

HostFacts cpu_facts(std::string_view cpuinfo) {
  const std::string_view flags = value_of(cpuinfo, "flags");
  HostFacts facts;
  facts.cpu_model = value_of(cpuinfo, "model name");
  facts.hardware_kvm = has_word(flags, "vmx") || has_word(flags, "svm");
  // arm64 names no models, and its /dev/kvm is the processor's own.
  if (const auto maker = value_of(cpuinfo, "CPU implementer"); !maker.empty()) {
    const auto part = value_of(cpuinfo, "CPU part");
    facts.cpu_model = "CPU implementer " + std::string(maker) + ", part " + std::string(part);
    facts.hardware_kvm = true;
  }
  return facts;
}

HostFacts host_facts(const KernelFile& cpuinfo) {
  HostFacts facts = cpu_facts(cpuinfo.read().value_or(""));
  utsname names{};
  if (::uname(&names) == 0) facts.kernel = names.release;
  return facts;
}

}  // namespace outboard::vmm
