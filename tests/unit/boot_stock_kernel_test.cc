// A distribution's own kernel: the file that OUTBOARD_TEST_KERNEL names, or the newest in /boot.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "boot/kernel.h"
#include "tests/unit/boot_samples.h"

using namespace outboard::boot;
using samples::Bytes;

namespace {

Bytes stock_kernel() {
  std::string path;
  if (const char* named = std::getenv("OUTBOARD_TEST_KERNEL")) {
    path = named;
  } else {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/boot", ignored)) {
      if (entry.path().filename().string().starts_with("vmlinuz-")) {
        path = std::max(path, entry.path().string());
      }
    }
  }
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = std::as_bytes(std::span(content));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("stock kernel: unpacks and has a PVH entry; by its own protocol it is placed whole") {
  const Bytes file = stock_kernel();
  if (file.empty()) {
    std::puts("SKIPPED: no kernel: OUTBOARD_TEST_KERNEL is not set and /boot has no vmlinuz");
    return;
  }
  Bytes ram = samples::dirty_ram(std::size_t{256} << 20);
  const auto pvh = load_kernel(file, ram, Entry::automatic);
  REQUIRE_MESSAGE(pvh.has_value(), pvh.error().message);
  CHECK(pvh->protocol == Protocol::pvh);
  CHECK(pvh->entry >= 0x100'0000);
  CHECK(pvh->entry < pvh->end);
  CHECK_FALSE(pvh->compression.empty());
  CHECK_FALSE(pvh->version.empty());
  const auto linux64 = load_kernel(file, ram, Entry::bzimage);
  REQUIRE_MESSAGE(linux64.has_value(), linux64.error().message);
  CHECK(linux64->protocol == Protocol::linux64);
  CHECK(linux64->entry == 0x100'0200);
}
