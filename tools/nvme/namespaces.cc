#include "tools/nvme/namespaces.h"

#include <cstring>
#include <string>

namespace outboard::nvme {

u64 stable_hash(std::string_view text, u64 seed) {
  u64 hash = seed;
  for (const char c : text) {
    hash ^= static_cast<u8>(c);
    hash *= 0x100'0000'01b3;
  }
  return hash;
}

NamespaceNames NamespaceNames::derive(std::string_view serial, u32 nsid) {
  const std::string key = std::string(serial) + '/' + std::to_string(nsid);
  const u64 words[] = {stable_hash(key), stable_hash(key, 0x9e37'79b9'7f4a'7c15),
                       stable_hash(key, 0xd6e8'feb8'6659'fd93)};
  NamespaceNames names;
  std::memcpy(names.eui64.data(), &words[0], 8);
  names.eui64[0] = static_cast<u8>((names.eui64[0] & 0xfc) | 0x02);  // locally administered
  std::memcpy(names.uuid.data(), &words[1], 16);
  names.uuid[6] = static_cast<u8>((names.uuid[6] & 0x0f) | 0x80);  // version 8: own making
  names.uuid[8] = static_cast<u8>((names.uuid[8] & 0x3f) | 0x80);
  // NGUID is EUI-64 based, 16 bytes: vendor extension, then the EUI-64 with its 24-bit OUI.
  std::memcpy(names.nguid.data(), &words[1], 8);
  std::memcpy(names.nguid.data() + 8, names.eui64.data(), 8);
  return names;
}

}  // namespace outboard::nvme
