#include "tools/nvme/statistics.h"

namespace outboard::nvme {
namespace {

const char* admin_name(std::size_t opcode) {
  switch (static_cast<AdminOpcode>(opcode)) {
    case AdminOpcode::delete_io_sq:
      return "delete_io_sq";
    case AdminOpcode::create_io_sq:
      return "create_io_sq";
    case AdminOpcode::get_log_page:
      return "get_log_page";
    case AdminOpcode::delete_io_cq:
      return "delete_io_cq";
    case AdminOpcode::create_io_cq:
      return "create_io_cq";
    case AdminOpcode::identify:
      return "identify";
    case AdminOpcode::abort:
      return "abort";
    case AdminOpcode::set_features:
      return "set_features";
    case AdminOpcode::get_features:
      return "get_features";
    case AdminOpcode::async_event_request:
      return "async_event_request";
    case AdminOpcode::doorbell_buffer_config:
      return "doorbell_buffer_config";
    case AdminOpcode::format_nvm:
      return "format_nvm";
  }
  return nullptr;
}

const char* io_name(std::size_t opcode) {
  switch (static_cast<IoOpcode>(opcode)) {
    case IoOpcode::flush:
      return "flush";
    case IoOpcode::write:
      return "write";
    case IoOpcode::read:
      return "read";
    case IoOpcode::compare:
      return "compare";
    case IoOpcode::write_zeroes:
      return "write_zeroes";
    case IoOpcode::dataset_management:
      return "dataset_management";
  }
  return nullptr;
}

// Flat objects of names and numbers: no library is needed to write them.
class Json {
 public:
  void open(const char* name) {
    key(name);
    text_ += '{';
    first_ = true;
  }
  void close() {
    text_ += '}';
    first_ = false;
  }
  void number(const std::string& name, u64 value) {
    key(name);
    text_ += std::to_string(value);
  }
  std::string take() { return '{' + text_ + '}'; }

 private:
  void key(const std::string& name) {
    if (!first_) text_ += ", ";
    first_ = false;
    text_ += '"' + name + "\": ";
  }
  std::string text_;
  bool first_ = true;
};

void by_opcode(Json& json, const char* name, const std::array<u64, 256>& counts,
               const char* (*name_of)(std::size_t)) {
  json.open(name);
  u64 unknown = 0;
  for (std::size_t opcode = 0; opcode < counts.size(); ++opcode) {
    if (counts[opcode] == 0) continue;
    if (const char* known = name_of(opcode); known != nullptr) {
      json.number(known, counts[opcode]);
    } else {
      unknown += counts[opcode];
    }
  }
  if (unknown != 0) json.number("unknown", unknown);
  json.close();
}

}  // namespace

std::string statistics_json(const Counters& counters, const vfio_user::Server::Counters& connection,
                            const std::optional<box::Report>& sandbox) {
  Json json;
  by_opcode(json, "admin", counters.admin, admin_name);
  by_opcode(json, "io", counters.io, io_name);
  json.number("errors", counters.errors);
  json.number("media_errors", counters.media_errors);
  json.number("bytes_read", counters.bytes_read);
  json.number("bytes_written", counters.bytes_written);
  json.number("bounced", counters.bounced);
  json.number("enables", counters.enables);
  json.number("disables", counters.disables);
  json.number("shutdowns", counters.shutdowns);
  json.number("device_resets", counters.device_resets);
  json.number("interrupts", counters.interrupts);
  json.number("doorbell_polls", counters.doorbell_polls);
  json.number("doorbell_writes", counters.doorbell_writes);
  json.number("doorbell_wakes", counters.doorbell_wakes);
  json.number("connections", connection.connections);
  json.number("refused_connections", connection.refused);
  json.number("dropped_connections", connection.dropped);
  json.number(
      "resets",
      connection.commands[static_cast<std::size_t>(vfio_user::wire::Command::device_reset)]);
  json.number("error_replies", connection.error_replies);
  json.number("dma_messages", connection.dma_messages);
  u64 messages = 0;
  for (const u64 count : connection.commands) messages += count;
  json.number("messages", messages);
  if (sandbox) {
    json.open("sandbox");
    for (const box::Report::Kind& kind : sandbox->kinds) json.number(kind.name, kind.calls);
    json.number("landlock", static_cast<u64>(sandbox->landlock));
    json.close();
  }
  return json.take();
}

}  // namespace outboard::nvme
