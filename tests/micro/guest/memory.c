// Writes and reads back a word in every 32 MiB of the RAM that the start info names, and tells
// where it ends.
#include "guest.h"

struct start_info {
  uint32_t magic, version, flags, modules;
  uint64_t module_list, command_line, rsdp, memory_map;
  uint32_t memory_map_entries, reserved;
};
struct memory_entry {
  uint64_t base, size;
  uint32_t type, reserved;
};

int guest_main(void* raw) {
  const struct start_info* info = raw;
  const struct memory_entry* map = (void*)info->memory_map;
  uint64_t top = 0, total = 0;
  for (int pass = 0; pass < 2; ++pass) {
    for (uint32_t i = 0; i < info->memory_map_entries; ++i) {
      if (map[i].type != 1) continue;
      if (pass == 0) total += map[i].size;
      if (map[i].base + map[i].size > top) top = map[i].base + map[i].size;
      for (uint64_t at = map[i].base + 0x1fffff8; at < map[i].base + map[i].size; at += 0x2000000) {
        if (pass == 0) {
          write64(at, at ^ 0x5555);
        } else {
          check_equal(read64(at), at ^ 0x5555, "memory");
        }
      }
    }
  }
  put_line("top", top);
  put_line("total", total);
  passed();
}
