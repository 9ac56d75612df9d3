// One namespace: its blocks, its names, and who may write it.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include "tools/nvme/backend.h"

namespace outboard::nvme {

struct NamespaceNames {
  std::array<u8, 8> eui64{};
  std::array<u8, 16> nguid{};
  std::array<u8, 16> uuid{};

  // The same names for the same serial number and namespace id, whenever and wherever.
  static NamespaceNames derive(std::string_view serial, u32 nsid);
};

// 64-bit FNV-1a: stable names, no secrecy.
u64 stable_hash(std::string_view text, u64 seed = 0xcbf2'9ce4'8422'2325);

struct Namespace {
  std::unique_ptr<Backend> backend;
  u32 block_shift = 9;  // 9 or 12
  bool read_only = false;
  // No transfer goes straight to guest memory: reads of a killed server may still land, and nothing
  // holds a successor back until they have (a read lock excludes no reader).
  bool buffered = false;
  NamespaceNames names;

  // Run-time state, the controller's.
  u32 in_flight = 0;        // I/O commands that have not finished
  bool formatting = false;  // a Format NVM waits for them or runs

  u32 block_size() const { return 1u << block_shift; }
  u64 blocks() const { return backend->size() >> block_shift; }
};

}  // namespace outboard::nvme
