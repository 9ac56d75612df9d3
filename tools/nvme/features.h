// Set Features and Get Features (§5.21, §5.14): which values exist, what they may be.
#pragma once

#include <array>
#include <span>

#include "tools/nvme/namespaces.h"
#include "tools/nvme/state.h"

namespace outboard::nvme {

class Features {
 public:
  Features(FeatureValues& values, std::span<const Namespace> namespaces, u16 io_queues,
           u16 vectors);

  void reset();  // defaults; first of all, where the values are not a predecessor's

  // Does this feature's Set or Get move 8 bytes of data (the timestamp)?
  static bool has_data(const Command& command) {
    return static_cast<FeatureId>(command.dw10 & 0xff) == FeatureId::timestamp;
  }

  // `queues_exist`: any I/O queue does. `data` is the 8 bytes of a feature that has_data().
  Status set(const Command& command, bool queues_exist, std::span<const std::byte> data, u32& dw0);
  Status get(const Command& command, std::span<std::byte> data, u32& dw0) const;

  const FeatureValues& values() const { return values_; }

 private:
  struct Kind {
    bool known = false;
    bool per_namespace = false;
    bool changeable = true;
  };
  Kind kind(FeatureId id) const;
  bool has_write_cache() const;
  Status value(const FeatureValues& from, FeatureId id, const Command& command,
               std::span<std::byte> data, u32& dw0) const;

  FeatureValues& values_;
  std::span<const Namespace> namespaces_;
  u16 io_queues_;
  u16 vectors_;
};

}  // namespace outboard::nvme
