#include <doctest/doctest.h>

#include "vmm/units.h"

namespace outboard::vmm {

TEST_CASE("a size takes binary suffixes, and nothing else") {
  CHECK(parse_size("512M") == 512ULL << 20);
  CHECK(parse_size("4GiB") == 4ULL << 30);
  CHECK(parse_size("64KB") == 64ULL << 10);
  CHECK(parse_size("4096") == 4096);
  CHECK(parse_size("16777215T") == 16777215ULL << 40);
  for (const char* nonsense :
       {"", "M", "-1M", "+1M", "1.5G", "512 M", "512m", "12Q", "16777216T", "18446744073709551616"})
    CHECK_MESSAGE(!parse_size(nonsense), nonsense);
}

TEST_CASE("an address is hexadecimal after 0x, or written like a size") {
  CHECK(parse_address("0x100000") == 1ULL << 20);
  CHECK(parse_address("0xffffffffffffffff") == ~0ULL);
  CHECK(parse_address("4G") == 4ULL << 30);
  for (const char* nonsense : {"", "0x", "0x1G", "0x-1", "0xg", "0x10000000000000000", "100h"})
    CHECK_MESSAGE(!parse_address(nonsense), nonsense);
}

TEST_CASE("a time needs its unit") {
  using std::chrono::milliseconds;
  CHECK(parse_duration("5s") == milliseconds(5000));
  CHECK(parse_duration("250ms") == milliseconds(250));
  CHECK(parse_duration("2m") == milliseconds(120000));
  CHECK(parse_duration("1h") == milliseconds(3600000));
  for (const char* nonsense : {"", "5", "-5s", "5 s", "0.5s", "5d", "99999999999999999999s"})
    CHECK_MESSAGE(!parse_duration(nonsense), nonsense);
}

TEST_CASE("a size is printed exactly and as short as can be") {
  CHECK(format_size(512ULL << 20) == "512M");
  CHECK(format_size(6ULL << 30) == "6G");
  CHECK(format_size(1000) == "1000");
  CHECK(format_size((1ULL << 30) + (1ULL << 20)) == "1025M");
  CHECK(format_duration(std::chrono::milliseconds(1500)) == "1500ms");
  CHECK(format_duration(std::chrono::milliseconds(5000)) == "5s");
}

}  // namespace outboard::vmm
