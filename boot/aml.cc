#include "boot/aml.h"

#include <array>
#include <cstdlib>

namespace outboard::boot::aml {
namespace {

enum Op : std::uint8_t {
  kZero = 0x00,
  kOne = 0x01,
  kName = 0x08,
  kBytePrefix = 0x0a,
  kWordPrefix = 0x0b,
  kDwordPrefix = 0x0c,
  kStringPrefix = 0x0d,
  kQwordPrefix = 0x0e,
  kScope = 0x10,
  kBuffer = 0x11,
  kPackage = 0x12,
  kMethod = 0x14,
  kDualName = 0x2e,
  kMultiName = 0x2f,
  kExtended = 0x5b,
  kLocal0 = 0x60,
  kArg0 = 0x68,
  kStore = 0x70,
  kAnd = 0x7b,
  kOr = 0x7d,
  kNotify = 0x86,
  kCreateDwordField = 0x8a,
  kLNot = 0x92,
  kLEqual = 0x93,
  kIf = 0xa0,
  kElse = 0xa1,
  kReturn = 0xa4,
  kDevice = 0x82,  // behind kExtended
};

constexpr std::uint8_t kSerialized = 0x08;

Bytes one(unsigned value) {
  return {static_cast<std::byte>(value)};
}

Bytes little_endian(std::uint64_t value, unsigned width) {
  Bytes bytes;
  for (unsigned i = 0; i < width; ++i) {
    bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  return bytes;
}

Bytes join(std::span<const Bytes> parts) {
  Bytes bytes;
  for (const Bytes& part : parts) append(bytes, part);
  return bytes;
}

Bytes join(std::initializer_list<Bytes> parts) {
  return join(std::span<const Bytes>(parts.begin(), parts.size()));
}

// PkgLength (§20.2.4): counts itself; 6 bits in one byte, or 4 bits and 1 to 3 further bytes.
Bytes package_length(std::size_t content) {
  if (content + 1 < 0x40) return one(static_cast<unsigned>(content + 1));
  for (unsigned further = 1; further <= 3; ++further) {
    const std::size_t length = content + 1 + further;
    if (length < (std::size_t{1} << (4 + 8 * further))) {
      return concat({one(static_cast<unsigned>(further << 6 | (length & 0xf))),
                     little_endian(length >> 4, further)});
    }
  }
  std::abort();  // a term of 256 MiB: no description gets there
}

Bytes with_length(const Bytes& opcode, const Bytes& content) {
  return concat({opcode, package_length(content.size()), content});
}

unsigned hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  return static_cast<unsigned>((c | 0x20) - 'a' + 10);
}

Bytes extended(Op op) {
  return {static_cast<std::byte>(kExtended), static_cast<std::byte>(op)};
}

}  // namespace

Bytes concat(std::initializer_list<Bytes> parts) {
  return join(parts);
}

void append(Bytes& to, std::span<const std::byte> part) {
  to.reserve(to.size() + part.size());
  for (const std::byte byte : part) to.push_back(byte);
}

Bytes name_string(std::string_view path) {
  Bytes bytes;
  while (!path.empty() && (path.front() == '\\' || path.front() == '^')) {
    bytes.push_back(static_cast<std::byte>(path.front()));
    path.remove_prefix(1);
  }
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const std::size_t dot = path.find('.');
    segments.push_back(path.substr(0, dot));
    path.remove_prefix(dot == std::string_view::npos ? path.size() : dot + 1);
  }
  if (segments.empty()) append(bytes, one(kZero));
  if (segments.size() == 2) append(bytes, one(kDualName));
  if (segments.size() > 2) {
    append(bytes, concat({one(kMultiName), one(static_cast<unsigned>(segments.size()))}));
  }
  for (const std::string_view segment : segments) {
    for (std::size_t i = 0; i < 4; ++i) {
      bytes.push_back(static_cast<std::byte>(i < segment.size() ? segment[i] : '_'));
    }
  }
  return bytes;
}

Bytes integer(std::uint64_t value) {
  if (value <= 1) return one(value == 0 ? kZero : kOne);
  if (value <= 0xff) return concat({one(kBytePrefix), little_endian(value, 1)});
  if (value <= 0xffff) return concat({one(kWordPrefix), little_endian(value, 2)});
  if (value <= 0xffff'ffff) return concat({one(kDwordPrefix), little_endian(value, 4)});
  return concat({one(kQwordPrefix), little_endian(value, 8)});
}

Bytes string(std::string_view text) {
  Bytes bytes = one(kStringPrefix);
  append(bytes, std::as_bytes(std::span(text)));
  bytes.push_back(std::byte{0});
  return bytes;
}

Bytes buffer(std::span<const std::byte> bytes) {
  Bytes content = integer(bytes.size());
  append(content, bytes);
  return with_length(one(kBuffer), content);
}

Bytes package(std::span<const Bytes> elements) {
  return with_length(one(kPackage),
                     concat({one(static_cast<unsigned>(elements.size())), join(elements)}));
}

Bytes eisa_id(std::string_view id) {
  // §19.3.4: three letters of 5 bits, four hex digits, big-endian.
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 3; ++i) value = value << 5 | (static_cast<unsigned>(id[i]) - 0x40);
  for (std::size_t i = 3; i < 7; ++i) value = value << 4 | hex_digit(id[i]);
  return concat({one(kDwordPrefix), little_endian(__builtin_bswap32(value), 4)});
}

Bytes uuid(std::string_view text) {
  // §19.6.142: the first three groups are little-endian.
  static constexpr std::array<std::uint8_t, 16> kFirstDigit{6,  4,  2,  0,  11, 9,  16, 14,
                                                            19, 21, 24, 26, 28, 30, 32, 34};
  Bytes bytes;
  for (const std::uint8_t at : kFirstDigit) {
    bytes.push_back(
        static_cast<std::byte>(hex_digit(text[at]) << 4 | hex_digit(text[std::size_t{at} + 1])));
  }
  return buffer(bytes);
}

Bytes name(std::string_view path, const Bytes& value) {
  return concat({one(kName), name_string(path), value});
}

Bytes scope(std::string_view path, std::initializer_list<Bytes> body) {
  return with_length(one(kScope), concat({name_string(path), join(body)}));
}

Bytes device(std::string_view path, std::span<const Bytes> body) {
  return with_length(extended(kDevice), concat({name_string(path), join(body)}));
}

Bytes device(std::string_view path, std::initializer_list<Bytes> body) {
  return device(path, std::span<const Bytes>(body.begin(), body.size()));
}

Bytes method(std::string_view path, unsigned arguments, std::initializer_list<Bytes> body) {
  return with_length(one(kMethod),
                     concat({name_string(path), one(arguments | kSerialized), join(body)}));
}

Bytes arg(unsigned index) {
  return one(kArg0 + index);
}
Bytes local(unsigned index) {
  return one(kLocal0 + index);
}

Bytes if_(const Bytes& condition, std::initializer_list<Bytes> body) {
  return with_length(one(kIf), concat({condition, join(body)}));
}

Bytes else_(std::initializer_list<Bytes> body) {
  return with_length(one(kElse), join(body));
}

Bytes equal(const Bytes& left, const Bytes& right) {
  return concat({one(kLEqual), left, right});
}

Bytes not_(const Bytes& condition) {
  return concat({one(kLNot), condition});
}

Bytes store(const Bytes& value, const Bytes& target) {
  return concat({one(kStore), value, target});
}

Bytes and_(const Bytes& left, const Bytes& right, const Bytes& target) {
  return concat({one(kAnd), left, right, target});
}

Bytes or_(const Bytes& left, const Bytes& right, const Bytes& target) {
  return concat({one(kOr), left, right, target});
}

Bytes create_dword_field(const Bytes& source, const Bytes& index, std::string_view field) {
  return concat({one(kCreateDwordField), source, index, name_string(field)});
}

Bytes notify(std::string_view path, std::uint64_t value) {
  return concat({one(kNotify), name_string(path), integer(value)});
}

Bytes return_(const Bytes& value) {
  return concat({one(kReturn), value});
}

}  // namespace outboard::boot::aml
