#include "tools/bench/private_folder.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/core.h>
#include <stdlib.h>

namespace outboard::bench {

Result<PrivateFolder> PrivateFolder::create() {
  const char* runtime = ::getenv("XDG_RUNTIME_DIR");
  std::string base = runtime != nullptr && std::strlen(runtime) < 60 ? runtime : "/tmp";
  for (const std::string& place : {base, std::string("/tmp")}) {
    std::string pattern = place + "/outboard-bench-XXXXXX";
    if (::mkdtemp(pattern.data()) != nullptr) return PrivateFolder(std::move(pattern));
  }
  return fail(ExitStatus::failed,
              fmt::format("cannot make a temporary folder in /tmp: {}", std::strerror(errno)));
}

PrivateFolder::~PrivateFolder() {
  std::error_code code;
  if (!path_.empty()) std::filesystem::remove_all(path_, code);
}

std::string PrivateFolder::file(std::string_view name) const {
  return fmt::format("{}/{}", path_, name);
}

Result<void> write_file(const std::string& path, std::string_view content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  out.flush();
  if (!out)
    return fail(ExitStatus::output, fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  return {};
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  return std::move(text).str();
}

}  // namespace outboard::bench
