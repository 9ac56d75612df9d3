#include <initializer_list>
#include <string>

#include <doctest/doctest.h>

#include "boot/aml.h"
#include "boot/aml_resources.h"

using namespace outboard::boot;
using aml::Bytes;

namespace {

Bytes bytes(std::initializer_list<int> values) {
  Bytes result;
  for (const int value : values) result.push_back(static_cast<std::byte>(value));
  return result;
}

Bytes text(std::string_view characters) {
  Bytes result;
  for (const char c : characters) result.push_back(static_cast<std::byte>(c));
  return result;
}

}  // namespace

TEST_CASE("ACPI 6.3 §20.2.3: integers take their shortest encoding") {
  CHECK(aml::integer(0) == bytes({0x00}));
  CHECK(aml::integer(1) == bytes({0x01}));
  CHECK(aml::integer(2) == bytes({0x0a, 2}));
  CHECK(aml::integer(0xff) == bytes({0x0a, 0xff}));
  CHECK(aml::integer(0x100) == bytes({0x0b, 0x00, 0x01}));
  CHECK(aml::integer(0x10000) == bytes({0x0c, 0x00, 0x00, 0x01, 0x00}));
  CHECK(aml::integer(0x1'0000'0000) == bytes({0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
}

TEST_CASE("ACPI 6.3 §20.2.2: names are padded, rooted and prefixed by their number of segments") {
  CHECK(aml::name_string("_S5") == text("_S5_"));
  CHECK(aml::name_string("\\_SB") == text("\\_SB_"));
  CHECK(aml::name_string("\\_SB.PCI0") == text("\\\x2e_SB_PCI0"));
  CHECK(aml::name_string("\\_SB.PCI0.COM1") == text("\\\x2f\x03_SB_PCI0COM1"));
}

TEST_CASE("ACPI 6.3 §20.2.4: package lengths count themselves, in 1 to 4 bytes") {
  // The encoded length of a scope whose whole content has `body` bytes.
  const auto length_of = [](std::size_t body, std::size_t width) {
    const Bytes scope = aml::scope("X", {Bytes(body - 4)});
    REQUIRE(scope.size() == 1 + width + body);
    return Bytes(scope.begin() + 1, scope.begin() + 1 + static_cast<std::ptrdiff_t>(width));
  };
  CHECK(length_of(62, 1) == bytes({0x3f}));
  CHECK(length_of(63, 2) == bytes({0x41, 0x04}));
  CHECK(length_of(4093, 2) == bytes({0x4f, 0xff}));
  CHECK(length_of(4094, 3) == bytes({0x81, 0x00, 0x01}));
  CHECK(length_of((1 << 20) - 4, 3) == bytes({0x8f, 0xff, 0xff}));
  CHECK(length_of((1 << 20) - 3, 4) == bytes({0xc1, 0x00, 0x00, 0x01}));
}

TEST_CASE("ACPI 6.3 §19.3.4: EISA ids are compressed; §19.6.142: UUIDs are mixed-endian") {
  CHECK(aml::eisa_id("PNP0A08") == bytes({0x0c, 0x41, 0xd0, 0x0a, 0x08}));
  CHECK(aml::uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766") ==
        bytes({0x11, 0x13, 0x0a, 16,   0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f,
               0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66}));
}

TEST_CASE("ACPI 6.3 §6.4: resource descriptors") {
  CHECK(aml::io(0x3f8, 8) == bytes({0x47, 1, 0xf8, 0x03, 0xf8, 0x03, 1, 8}));
  CHECK(aml::edge_interrupt(4) == bytes({0x89, 6, 0, 0x03, 1, 4, 0, 0, 0}));
  CHECK(aml::memory_fixed(0xe000'0000, 0x10'0000) ==
        bytes({0x86, 9, 0, 1, 0, 0, 0, 0xe0, 0, 0, 0x10, 0}));
  CHECK(aml::memory_fixed(0x1'0000'0000, 0x10'0000)[0] == std::byte{0x8a});
  CHECK(aml::bus_window(0, 255) ==
        bytes({0x88, 0x0d, 0, 2, 0x0c, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1}));
  CHECK(aml::memory_window32(0xc000'0000, 0x2000'0000) ==
        bytes({0x87, 0x17, 0,    0,    0x0c, 1, 0, 0, 0, 0, 0, 0, 0,
               0xc0, 0xff, 0xff, 0xff, 0xdf, 0, 0, 0, 0, 0, 0, 0, 0x20}));
}
