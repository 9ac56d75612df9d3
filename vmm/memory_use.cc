#include "vmm/memory_use.h"

#include <array>
#include <charconv>
#include <string>

#include "vmm/read_file.h"

namespace outboard::vmm {
namespace {

// "Rss:       12 kB" -> bytes, when the line has that key.
std::optional<std::uint64_t> bytes_of(std::string_view line, std::string_view key) {
  if (!line.starts_with(key)) return std::nullopt;
  line.remove_prefix(key.size());
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  std::uint64_t kilobytes = 0;
  std::from_chars(line.data(), line.data() + line.size(), kilobytes);
  return kilobytes * 1024;
}

// The line that begins a mapping, "55d0c0e00000-55d0c0e21000 rw-p …", has no "Key:" first.
bool begins_mapping(std::string_view line) {
  const auto space = line.find(' ');
  return space != std::string_view::npos && space > 0 && line[space - 1] != ':' &&
         line.substr(0, space).find('-') != std::string_view::npos;
}

bool is_shared_memory(std::string_view line) {
  const auto path = line.find('/');
  if (path == std::string_view::npos) return false;
  for (const std::string_view start : {"/memfd:", "/dev/shm/", "/dev/zero", "/SYSV"}) {
    if (line.substr(path).starts_with(start)) return true;
  }
  return false;
}

}  // namespace

MemoryUse sum_smaps(std::string_view smaps) {
  MemoryUse sum;
  bool shared = false;
  while (!smaps.empty()) {
    const auto end = smaps.find('\n');
    const std::string_view line = smaps.substr(0, end);
    smaps.remove_prefix(end == std::string_view::npos ? smaps.size() : end + 1);
    if (begins_mapping(line)) {
      shared = is_shared_memory(line);
    } else if (const auto resident = bytes_of(line, "Rss:")) {
      (shared ? sum.shared : sum.file) += *resident;
    } else if (const auto anonymous = bytes_of(line, "Anonymous:")) {  // part of Rss, after it
      (shared ? sum.shared : sum.file) -= *anonymous;
      sum.anonymous += *anonymous;
    }
  }
  return sum;
}

std::optional<MemoryUse> memory_use(const KernelFile& smaps) {
  const auto text = smaps.read();
  if (!text) return std::nullopt;
  return sum_smaps(*text);
}

}  // namespace outboard::vmm
