#include "boot/aml_resources.h"

namespace outboard::boot::aml {
namespace {

// Tags of the descriptors (§6.4.2, §6.4.3).
constexpr std::uint8_t kIo = 0x47;
constexpr std::uint8_t kEndTag = 0x79;
constexpr std::uint8_t kMemory32Fixed = 0x86;
constexpr std::uint8_t kDwordSpace = 0x87;
constexpr std::uint8_t kWordSpace = 0x88;
constexpr std::uint8_t kExtendedInterrupt = 0x89;
constexpr std::uint8_t kQwordSpace = 0x8a;

enum class SpaceType : std::uint8_t { memory = 0, io = 1, bus = 2 };

// General flags of an address space descriptor (§6.4.3.5.1).
constexpr std::uint8_t kConsumer = 0x01;
constexpr std::uint8_t kMinimumFixed = 0x04;
constexpr std::uint8_t kMaximumFixed = 0x08;
constexpr std::uint8_t kMemoryReadWrite = 0x01;  // type-specific: not cacheable, read/write
constexpr std::uint8_t kIoEntireRange = 0x03;    // type-specific: ISA and non-ISA ports

void put(Bytes& bytes, std::uint64_t value, unsigned width) {
  for (unsigned i = 0; i < width; ++i) bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
}

// Word, DWord and QWord address space descriptors differ only in the width of their five numbers.
Bytes space(std::uint8_t tag, unsigned width, SpaceType type, std::uint8_t general,
            std::uint8_t specific, std::uint64_t base, std::uint64_t size) {
  Bytes bytes;
  put(bytes, tag, 1);
  put(bytes, 3 + 5 * width, 2);
  put(bytes, static_cast<std::uint8_t>(type), 1);
  put(bytes, general | kMinimumFixed | kMaximumFixed, 1);
  put(bytes, specific, 1);
  put(bytes, 0, width);  // granularity
  put(bytes, base, width);
  put(bytes, base + size - 1, width);
  put(bytes, 0, width);  // translation
  put(bytes, size, width);
  return bytes;
}

}  // namespace

Bytes resource_template(std::span<const Bytes> descriptors) {
  Bytes bytes;
  for (const Bytes& descriptor : descriptors) append(bytes, descriptor);
  put(bytes, kEndTag, 1);
  put(bytes, 0, 1);  // checksum not used
  return buffer(bytes);
}

Bytes resource_template(std::initializer_list<Bytes> descriptors) {
  return resource_template(std::span<const Bytes>(descriptors.begin(), descriptors.size()));
}

Bytes io(std::uint16_t port, std::uint8_t count) {
  Bytes bytes;
  put(bytes, kIo, 1);
  put(bytes, 1, 1);  // 16-bit decode
  put(bytes, port, 2);
  put(bytes, port, 2);
  put(bytes, 1, 1);  // alignment
  put(bytes, count, 1);
  return bytes;
}

Bytes memory_fixed(std::uint64_t base, std::uint64_t size) {
  if (base + size > 0xffff'ffff) {
    return space(kQwordSpace, 8, SpaceType::memory, kConsumer, kMemoryReadWrite, base, size);
  }
  Bytes bytes;
  put(bytes, kMemory32Fixed, 1);
  put(bytes, 9, 2);
  put(bytes, kMemoryReadWrite, 1);
  put(bytes, base, 4);
  put(bytes, size, 4);
  return bytes;
}

Bytes edge_interrupt(std::uint32_t gsi) {
  constexpr std::uint8_t kEdge = 0x02;
  Bytes bytes;
  put(bytes, kExtendedInterrupt, 1);
  put(bytes, 6, 2);
  put(bytes, kConsumer | kEdge, 1);
  put(bytes, 1, 1);  // one interrupt
  put(bytes, gsi, 4);
  return bytes;
}

Bytes bus_window(std::uint16_t first, std::uint16_t last) {
  return space(kWordSpace, 2, SpaceType::bus, 0, 0, first, std::uint64_t{last} - first + 1);
}

Bytes io_window(std::uint64_t base, std::uint64_t size) {
  return space(kWordSpace, 2, SpaceType::io, 0, kIoEntireRange, base, size);
}

Bytes memory_window32(std::uint64_t base, std::uint64_t size) {
  return space(kDwordSpace, 4, SpaceType::memory, 0, kMemoryReadWrite, base, size);
}

Bytes memory_window64(std::uint64_t base, std::uint64_t size) {
  return space(kQwordSpace, 8, SpaceType::memory, 0, kMemoryReadWrite, base, size);
}

}  // namespace outboard::boot::aml
