#include "tools/nvme/features.h"

#include <algorithm>
#include <chrono>

#include "tools/nvme/bytes.h"

namespace outboard::nvme {
namespace {

u64 monotonic_ms() {
  return static_cast<u64>(std::chrono::duration_cast<std::chrono::milliseconds>(
                              std::chrono::steady_clock::now().time_since_epoch())
                              .count());
}

constexpr u64 kTimestampMask = (u64{1} << 48) - 1;

}  // namespace

Features::Features(FeatureValues& values, std::span<const Namespace> namespaces, u16 io_queues,
                   u16 vectors)
    : values_(values), namespaces_(namespaces), io_queues_(io_queues), vectors_(vectors) {}

void Features::reset() {
  const FeatureValues old = values_;
  values_ = FeatureValues{};
  values_.io_queues = io_queues_;
  // The timestamp survives a controller reset (§5.21.1.14).
  values_.timestamp = old.timestamp;
  values_.timestamp_set_at = old.timestamp_set_at;
  values_.timestamp_by_host = old.timestamp_by_host;
}

bool Features::has_write_cache() const {
  return std::any_of(namespaces_.begin(), namespaces_.end(),
                     [](const Namespace& ns) { return ns.backend->volatile_cache(); });
}

Features::Kind Features::kind(FeatureId id) const {
  switch (id) {
    case FeatureId::arbitration:
    case FeatureId::power_management:
    case FeatureId::temperature_threshold:
    case FeatureId::number_of_queues:
    case FeatureId::interrupt_coalescing:
    case FeatureId::interrupt_vector:
    case FeatureId::write_atomicity:
    case FeatureId::async_events:
    case FeatureId::timestamp:
      return {.known = true};
    case FeatureId::error_recovery:
      return {.known = true, .per_namespace = true};
    case FeatureId::write_cache:
      return {.known = has_write_cache()};
  }
  return {};
}

Status Features::set(const Command& command, bool queues_exist, std::span<const std::byte> data,
                     u32& dw0) {
  const auto id = static_cast<FeatureId>(command.dw10 & 0xff);
  const Kind what = kind(id);
  const u32 value = command.dw11;
  dw0 = 0;
  if (!what.known) return Status::invalid_field;
  if ((command.dw10 >> 31) != 0) return Status::feature_not_saveable;
  const bool all = command.nsid == kBroadcastNamespace;
  if (what.per_namespace) {
    if (!all && (command.nsid == 0 || command.nsid > namespaces_.size())) {
      return Status::invalid_namespace;
    }
  } else if (command.nsid != 0 && !all) {
    return Status::feature_not_namespace_specific;
  }

  switch (id) {
    case FeatureId::arbitration:
      values_.arbitration = value & 0xffff'ff07;
      return Status::success;
    case FeatureId::power_management:
      // One power state; workload hints are accepted and change nothing.
      return (value & 0x1f) == 0 ? Status::success : Status::invalid_field;
    case FeatureId::temperature_threshold: {
      const u32 sensor = (value >> 16) & 0xf;
      const u32 type = (value >> 20) & 3;
      if ((sensor != 0 && sensor != 0xf) || type > 1) return Status::invalid_field;
      (type == 0 ? values_.over_temperature : values_.under_temperature) = value & 0xffff;
      return Status::success;
    }
    case FeatureId::error_recovery:
      if ((value & (1u << 16)) != 0) return Status::invalid_field;  // DULBE is not supported
      for (u32 i = 0; i < namespaces_.size(); ++i) {
        if (all || i + 1 == command.nsid) values_.error_recovery[i] = value & 0xffff;
      }
      return Status::success;
    case FeatureId::write_cache:
      values_.write_cache = value & 1;
      return Status::success;
    case FeatureId::number_of_queues: {
      const u32 sqs = value & 0xffff;
      const u32 cqs = value >> 16;
      if (sqs == 0xffff || cqs == 0xffff) return Status::invalid_field;
      if (queues_exist) return Status::command_sequence_error;
      // As many of one kind as of the other: simplest for both sides.
      values_.io_queues = static_cast<u16>(std::min<u32>(io_queues_, std::max(sqs, cqs) + 1));
      dw0 = (values_.io_queues - 1u) << 16 | (values_.io_queues - 1u);
      return Status::success;
    }
    case FeatureId::interrupt_coalescing:
      values_.interrupt_coalescing = value & 0xffff;
      return Status::success;
    case FeatureId::interrupt_vector:
      if ((value & 0xffff) >= vectors_) return Status::invalid_field;
      values_.coalescing_off[value & 0xffff] = value >> 16 & 1;
      return Status::success;
    case FeatureId::write_atomicity:
      values_.write_atomicity = value & 1;
      return Status::success;
    case FeatureId::async_events:
      if ((value & 0xffff'ff00) != 0) return Status::invalid_field;  // Identify offers no notices
      values_.async_events = value;
      return Status::success;
    case FeatureId::timestamp:
      values_.timestamp = nvme::get<u64>(data, 0) & kTimestampMask;
      values_.timestamp_set_at = monotonic_ms();
      values_.timestamp_by_host = 1;
      return Status::success;
  }
  return Status::invalid_field;
}

Status Features::value(const FeatureValues& from, FeatureId id, const Command& command,
                       std::span<std::byte> data, u32& dw0) const {
  switch (id) {
    case FeatureId::arbitration:
      dw0 = from.arbitration;
      return Status::success;
    case FeatureId::power_management:
      dw0 = 0;
      return Status::success;
    case FeatureId::temperature_threshold: {
      const u32 sensor = (command.dw11 >> 16) & 0xf;
      const u32 type = (command.dw11 >> 20) & 3;
      if (sensor != 0 || type > 1) return Status::invalid_field;
      dw0 = type == 0 ? from.over_temperature : from.under_temperature;
      return Status::success;
    }
    case FeatureId::error_recovery:
      dw0 = from.error_recovery[command.nsid - 1];
      return Status::success;
    case FeatureId::write_cache:
      dw0 = from.write_cache != 0 ? 1 : 0;
      return Status::success;
    case FeatureId::number_of_queues:
      dw0 = (from.io_queues - 1u) << 16 | (from.io_queues - 1u);
      return Status::success;
    case FeatureId::interrupt_coalescing:
      dw0 = from.interrupt_coalescing;
      return Status::success;
    case FeatureId::interrupt_vector: {
      const u32 vector = command.dw11 & 0xffff;
      if (vector >= vectors_) return Status::invalid_field;
      dw0 = vector | (from.coalescing_off[vector] != 0 ? 1u << 16 : 0);
      return Status::success;
    }
    case FeatureId::write_atomicity:
      dw0 = from.write_atomicity;
      return Status::success;
    case FeatureId::async_events:
      dw0 = from.async_events;
      return Status::success;
    case FeatureId::timestamp: {
      // §5.21.1.14: 47:0 ms, 51:49 origin (1: set by the host).
      const u64 now = (from.timestamp + monotonic_ms() - from.timestamp_set_at) & kTimestampMask;
      put<u64>(data, 0, now | (from.timestamp_by_host != 0 ? u64{1} << 49 : 0));
      dw0 = 0;
      return Status::success;
    }
  }
  return Status::invalid_field;
}

Status Features::get(const Command& command, std::span<std::byte> data, u32& dw0) const {
  const auto id = static_cast<FeatureId>(command.dw10 & 0xff);
  const u32 select = command.dw10 >> 8 & 7;  // 0 current, 1 default, 2 saved, 3 capabilities
  const Kind what = kind(id);
  dw0 = 0;
  if (!what.known || select > 3) return Status::invalid_field;
  if (select == 3) {
    dw0 = (what.per_namespace ? 2u : 0u) | (what.changeable ? 4u : 0u);
    return Status::success;
  }
  if (what.per_namespace && (command.nsid == 0 || command.nsid > namespaces_.size())) {
    return Status::invalid_namespace;
  }
  if (select == 0) return value(values_, id, command, data, dw0);
  FeatureValues defaults;  // nothing is saveable, so what is saved are the defaults
  defaults.io_queues = io_queues_;
  defaults.timestamp_set_at = monotonic_ms();
  return value(defaults, id, command, data, dw0);
}

}  // namespace outboard::nvme
