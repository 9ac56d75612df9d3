#include "tools/bench/programs.h"

#include <filesystem>

#include <fmt/core.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/bench/child.h"
#include "tools/bench/memory_file.h"

namespace outboard::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kAskLimit = 20'000;  // milliseconds

bool runs(const fs::path& path) {
  std::error_code code;
  return fs::is_regular_file(path, code) && ::access(path.c_str(), X_OK) == 0;
}

}  // namespace

Result<std::string> find_program(const std::string& name, const std::string& given,
                                 const std::string& option) {
  if (!given.empty()) {
    if (given.find('/') == std::string::npos || runs(given)) return given;
    return fail(ExitStatus::missing, fmt::format("{}: {} is no program", option, given));
  }
  std::error_code code;
  const fs::path here = fs::read_symlink("/proc/self/exe", code).parent_path();
  for (const char* folder : {"", "../../vmm", "../nvme"}) {
    if (const fs::path candidate = here / folder / name; runs(candidate))
      return candidate.lexically_normal().string();
  }
  const char* path = ::getenv("PATH");
  const std::string list = path != nullptr ? path : "";
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t colon = std::min(list.find(':', at), list.size());
    if (const fs::path candidate = fs::path(list.substr(at, colon - at)) / name; runs(candidate))
      return candidate.string();
    at = colon + 1;
  }
  return fail(
      ExitStatus::missing,
      fmt::format("there is no {} beside this program or on PATH; name it with {}", name, option));
}

std::string output_of(const std::vector<std::string>& argv) {
  const vfio_user::UniqueFd file = memory_file("output");
  ChildOptions options;
  options.argv = argv;
  options.output = options.errors = file.get();
  auto child = Child::start(options);
  if (!child || !child->wait(kAskLimit)) return {};
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  std::string text(static_cast<std::size_t>(size > 0 ? size : 0), '\0');
  const ssize_t got = ::pread(file.get(), text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

std::string first_line_of(const std::vector<std::string>& argv) {
  const std::string text = output_of(argv);
  return text.substr(0, text.find('\n'));
}

}  // namespace outboard::bench
