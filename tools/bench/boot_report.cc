#include "tools/bench/boot_report.h"

#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace outboard::bench {
namespace {

using nlohmann::json;

// A member of an object, null when it is not there.
const json& member(const json& object, const char* key) {
  static const json kNone;
  if (!object.is_object()) return kNone;
  const auto found = object.find(key);
  return found == object.end() ? kNone : *found;
}

std::string text(const json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

std::uint64_t number(const json& value) {
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

std::optional<Memory> memory(const json& value) {
  if (!member(value, "anon_bytes").is_number() || !member(value, "file_bytes").is_number())
    return std::nullopt;
  return Memory{number(member(value, "anon_bytes")), number(member(value, "file_bytes")),
                number(member(value, "shmem_bytes"))};
}

tl::expected<std::vector<Mark>, std::string> marks(const json& list) {
  if (!list.is_array()) return tl::unexpected(std::string("it has no list of marks"));
  std::vector<Mark> all;
  for (const json& item : list) {
    const json& at = member(item, "ns");
    Mark mark{text(member(item, "device")), text(member(item, "key")), text(member(item, "name")),
              at.is_number() ? at.get<double>() : -1};
    if (mark.key.empty() || mark.at < 0)
      return tl::unexpected(fmt::format("mark {} has no key or no time", all.size()));
    if (mark.name.empty()) mark.name = mark.key;
    all.push_back(std::move(mark));
  }
  std::ranges::stable_sort(all, {}, &Mark::at);
  return all;
}

void read_devices(const json& devices, BootReport& report) {
  if (!devices.is_array()) return;
  for (const json& device : devices) {
    const std::string name = text(member(device, "name"));
    for (const char* key : {"round_trips", "attach_round_trips", "bytes_out", "bytes_in"}) {
      const json& value = member(device, key);
      if (!value.is_number_unsigned()) continue;
      std::string label = key;
      std::ranges::replace(label, '_', ' ');
      report.counts[name + ": " + label] = number(value);
    }
    if (const json& shared = member(device, "completion_shared_vector");
        shared.is_boolean() && shared.get<bool>())
      report.shared_vectors.push_back(name);
  }
}

}  // namespace

tl::expected<BootReport, std::string> parse_boot_report(std::string_view source) {
  const json root = json::parse(source, nullptr, false);
  if (root.is_discarded())
    return tl::unexpected(std::string("it is no JSON, or only a part of it"));
  const std::uint64_t schema = number(member(root, "schema"));
  if (schema != 1) {
    return tl::unexpected(
        fmt::format("its schema is {}, and this program knows 1", member(root, "schema").dump()));
  }
  BootReport report;
  report.version = text(member(root, "outboard"));
  if (const json& status = member(root, "exit_status"); status.is_number_integer())
    report.exit_status = status.get<int>();
  report.stop_reason = text(member(root, "stop_reason"));
  const json& clock = member(root, "clock");
  report.start = number(member(clock, "start_monotonic_ns"));
  if (report.start == 0) return tl::unexpected(std::string("its clock has no start"));
  report.started_by_parent = text(member(clock, "started_by")) == "parent";
  const json& machine = member(root, "machine");
  report.page_size = text(member(machine, "page_size"));
  report.kvm = text(member(machine, "kvm"));
  auto list = marks(member(root, "marks"));
  if (!list) return tl::unexpected(list.error());
  report.marks = std::move(*list);
  if (const json& exits = member(root, "exits"); exits.is_object()) {
    for (const auto& [kind, count] : exits.items())
      if (count.is_number_unsigned()) report.counts[kind + " exits"] = number(count);
  }
  read_devices(member(root, "devices"), report);
  const json& rss = member(root, "rss");
  report.memory = memory(rss);
  report.memory_at_first_run = memory(member(rss, "at_first_run"));
  return report;
}

}  // namespace outboard::bench
