#include <doctest/doctest.h>

#include "vfio_user/window_table.h"
#include "vfio_user_raw_client.h"

namespace outboard::vfio_user {
namespace {

using testing::make_memfd;

constexpr std::uint32_t kReadWrite = wire::kDmaReadable | wire::kDmaWritable;

wire::DmaMap request(std::uint64_t address, std::uint64_t size, std::uint64_t offset = 0,
                     std::uint32_t flags = kReadWrite) {
  return {32, flags, offset, address, size};
}

int code_of(const Result<const WindowTable::Window*>& result) {
  return result ? 0 : result.error().code;
}

TEST_CASE("A window shows the client's bytes at its file offset (2.7)") {
  WindowTable table(8, false);
  auto fd = make_memfd(0x4000);
  REQUIRE(::pwrite(fd.get(), "hello", 5, 0x2000) == 5);
  const int raw = fd.get();
  REQUIRE(table.map(request(0x10000, 0x2000, 0x2000), std::move(fd)));
  const auto host = table.translate(0x10000, 5, false);
  REQUIRE(host.size() == 5);
  CHECK(std::memcmp(host.data(), "hello", 5) == 0);
  CHECK(::fcntl(raw, F_GETFD) == -1);  // the mapping needs the file no more
}

TEST_CASE("Translation stays inside one window and its permissions") {
  WindowTable table(8, false);
  REQUIRE(table.map(request(0x1000, 0x1000), make_memfd(0x1000)));
  REQUIRE(table.map(request(0x2000, 0x1000, 0, wire::kDmaReadable), make_memfd(0x1000)));
  REQUIRE(table.map(request(0x8000, 0x1000), UniqueFd()));
  CHECK(table.translate(0x1000, 0x1000, true).size() == 0x1000);
  CHECK(table.translate(0x1fff, 1, true).size() == 1);
  CHECK(table.translate(0x1fff, 2, true).empty());  // into the neighbour
  CHECK(table.translate(0xfff, 1, false).empty());
  CHECK(table.translate(0x2000, 8, false).size() == 8);
  CHECK(table.translate(0x2000, 8, true).empty());   // read-only
  CHECK(table.translate(0x3000, 1, false).empty());  // the hole
  CHECK(table.translate(0x8000, 1, false).empty());  // by message only
  CHECK(table.translate(0x1000, 0, false).empty());
  CHECK(table.translate(0x1800, UINT64_MAX - 0x100, false).empty());  // wraps
  CHECK(table.translate(UINT64_MAX, 1, false).empty());
}

TEST_CASE("Overlapping windows are refused with EEXIST, adjacent ones are not (2.7)") {
  WindowTable table(8, false);
  const auto map = [&](std::uint64_t address, std::uint64_t size) {
    return code_of(table.map(request(address, size), UniqueFd()));
  };
  CHECK(map(0x4000, 0x4000) == 0);
  CHECK(map(0x4000, 0x4000) == EEXIST);
  CHECK(map(0x3000, 0x2000) == EEXIST);
  CHECK(map(0x7000, 0x1000) == EEXIST);
  CHECK(map(0x5000, 0x1000) == EEXIST);
  CHECK(map(0x1000, 0x10000) == EEXIST);
  CHECK(map(0x8000, 0x1000) == 0);
  CHECK(map(0x3000, 0x1000) == 0);
  CHECK(map(UINT64_MAX - 0xfff, 0x1000) == 0);  // up to the last byte there is
}

TEST_CASE("Windows that make no sense are refused with EINVAL (2.7)") {
  WindowTable table(8, false);
  const auto map = [&](wire::DmaMap asked, UniqueFd fd = {}) {
    return code_of(table.map(asked, std::move(fd)));
  };
  CHECK(map(request(0, 0)) == EINVAL);
  CHECK(map(request(0x1000, 0x800)) == EINVAL);
  CHECK(map(request(0x1800, 0x1000)) == EINVAL);
  CHECK(map(request(0x1000, 0x1000, 0x10)) == EINVAL);
  CHECK(map(request(UINT64_MAX - 0xfff, 0x2000)) == EINVAL);
  CHECK(map(request(0, 0x2000, UINT64_MAX - 0xfff)) == EINVAL);
  CHECK(map(request(0, 0x1000, 0, 0)) == EINVAL);
  CHECK(map(request(0, 0x1000, 0, kReadWrite | 16)) == EINVAL);
  CHECK(map(request(0, 0x1000, 0, kReadWrite | wire::kDmaMmap)) == EINVAL);  // no fd
  CHECK(map(request(0, 0x2000), make_memfd(0x1000)) == EINVAL);              // past the end
  CHECK(map(request(0, 0x1000, 0x1000), make_memfd(0x1000)) == EINVAL);
  CHECK(map(request(0, 0x1000), UniqueFd(::open("/dev/zero", O_RDWR))) == EINVAL);
  CHECK(map(request(0, 0x1000), UniqueFd(::open("/", O_RDONLY))) == EINVAL);
  CHECK(map(request(0, std::uint64_t{1} << 62), make_memfd(0x1000)) == EINVAL);
  CHECK(table.first() == nullptr);
}

TEST_CASE("A writable window of a file opened for reading is refused") {
  WindowTable table(8, false);
  const auto fd = make_memfd(0x1000);
  const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  CHECK(code_of(table.map(request(0, 0x1000), UniqueFd(::open(path.c_str(), O_RDONLY)))) == EACCES);
  CHECK(code_of(table.map(request(0, 0x1000, 0, wire::kDmaReadable),
                          UniqueFd(::open(path.c_str(), O_RDONLY)))) == 0);
}

TEST_CASE("There are at most max_dma_maps windows (1.3)") {
  WindowTable table(2, false);
  CHECK(code_of(table.map(request(0x1000, 0x1000), UniqueFd())) == 0);
  CHECK(code_of(table.map(request(0x2000, 0x1000), UniqueFd())) == 0);
  CHECK(code_of(table.map(request(0x3000, 0x1000), UniqueFd())) == ENOSPC);
  table.remove(table.exact(0x1000, 0x1000));
  CHECK(code_of(table.map(request(0x3000, 0x1000), UniqueFd())) == 0);
}

TEST_CASE("C81 memory that can be truncated is told apart, and refused on request") {
  WindowTable lenient(8, false);
  CHECK((*lenient.map(request(0, 0x1000), make_memfd(0x1000, true)))->info.sealed);
  CHECK(!(*lenient.map(request(0x1000, 0x1000), make_memfd(0x1000, false)))->info.sealed);
  WindowTable strict(8, true);
  CHECK(code_of(strict.map(request(0, 0x1000), make_memfd(0x1000, true))) == 0);
  CHECK(code_of(strict.map(request(0x1000, 0x1000), make_memfd(0x1000, false))) == EPERM);
}

TEST_CASE("Only a whole window is found by its range (2.7: no partial unmap)") {
  WindowTable table(8, false);
  REQUIRE(table.map(request(0x1000, 0x3000), UniqueFd()));
  CHECK(table.exact(0x1000, 0x3000) != nullptr);
  CHECK(table.exact(0x1000, 0x1000) == nullptr);
  CHECK(table.exact(0x2000, 0x2000) == nullptr);
  CHECK(table.exact(0x0000, 0x5000) == nullptr);
}

TEST_CASE("A window over huge pages is mapped at any 4 KiB offset of them") {
  UniqueFd fd(::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB));
  if (!fd || ::ftruncate(fd.get(), 4 * 1024 * 1024) != 0) {
    MESSAGE("no huge pages on this machine: not tried");
    return;
  }
  WindowTable table(8, false);
  const auto mapped = table.map(request(0, 0x1000, 0x3000), std::move(fd));
  REQUIRE(mapped);  // not touched: there may be no huge page free
  CHECK((*mapped)->info.host.size() == 0x1000);
}

}  // namespace
}  // namespace outboard::vfio_user
