// Builds ACPI Machine Language (ACPI 6.3 §20): each function returns the encoded bytes of one term,
// made of the bytes of its parts. Covers what the DSDT here needs, no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace outboard::boot::aml {

using Bytes = std::vector<std::byte>;

[[nodiscard]] Bytes concat(std::initializer_list<Bytes> parts);
void append(Bytes& to, std::span<const std::byte> part);

// Data. `path` is an ASL path: "PCI0", "\\_SB.PWRB"; each segment has 1 to 4 characters.
[[nodiscard]] Bytes name_string(std::string_view path);
[[nodiscard]] Bytes integer(std::uint64_t value);  // in the shortest encoding
[[nodiscard]] Bytes string(std::string_view text);
[[nodiscard]] Bytes buffer(std::span<const std::byte> bytes);
[[nodiscard]] Bytes package(std::span<const Bytes> elements);  // at most 255
[[nodiscard]] Bytes eisa_id(std::string_view id);              // "PNP0A08", as an integer
[[nodiscard]] Bytes uuid(std::string_view text);               // ToUUID("33DB4D5B-…"), a buffer

// Named objects.
[[nodiscard]] Bytes name(std::string_view path, const Bytes& value);
[[nodiscard]] Bytes scope(std::string_view path, std::initializer_list<Bytes> body);
[[nodiscard]] Bytes device(std::string_view path, std::span<const Bytes> body);
[[nodiscard]] Bytes device(std::string_view path, std::initializer_list<Bytes> body);
// Always serialized: a method that creates names must be.
[[nodiscard]] Bytes method(std::string_view path, unsigned arguments,
                           std::initializer_list<Bytes> body);

// Statements and expressions of a method.
[[nodiscard]] Bytes arg(unsigned index);
[[nodiscard]] Bytes local(unsigned index);
[[nodiscard]] Bytes if_(const Bytes& condition, std::initializer_list<Bytes> body);
[[nodiscard]] Bytes else_(std::initializer_list<Bytes> body);
[[nodiscard]] Bytes equal(const Bytes& left, const Bytes& right);
[[nodiscard]] Bytes not_(const Bytes& condition);
[[nodiscard]] Bytes store(const Bytes& value, const Bytes& target);
[[nodiscard]] Bytes and_(const Bytes& left, const Bytes& right, const Bytes& target);
[[nodiscard]] Bytes or_(const Bytes& left, const Bytes& right, const Bytes& target);
[[nodiscard]] Bytes create_dword_field(const Bytes& source, const Bytes& index,
                                       std::string_view field);
[[nodiscard]] Bytes notify(std::string_view path, std::uint64_t value);
[[nodiscard]] Bytes return_(const Bytes& value);

}  // namespace outboard::boot::aml
