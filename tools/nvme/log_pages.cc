#include "tools/nvme/log_pages.h"

#include "tools/nvme/bytes.h"

namespace outboard::nvme {

LogPages::LogPages(const Identity& identity, const Counters& counters,
                   const FeatureValues& features)
    : identity_(identity), counters_(counters), features_(features) {}

void LogPages::reset() {
  errors_.clear();
}

void LogPages::add_error(u16 sq, const Command& command, u16 status_field, u64 lba) {
  if (errors_.size() == identity_.error_entries) errors_.pop_back();
  errors_.push_front({++error_count_, sq, command.id, status_field, lba, command.nsid});
}

u8 LogPages::critical_warning() const {
  const bool temperature =
      kTemperature >= features_.over_temperature || kTemperature <= features_.under_temperature;
  return temperature ? 1u << 1 : 0;
}

std::vector<std::byte> LogPages::page(LogId id) const {
  switch (id) {
    case LogId::error:
      return error();
    case LogId::smart:
      return smart();
    case LogId::firmware:
      return firmware();
    case LogId::effects:
      return effects();
  }
  return {};
}

std::vector<std::byte> LogPages::error() const {
  std::vector<std::byte> data(64u * identity_.error_entries);
  std::size_t at = 0;
  for (const ErrorEntry& entry : errors_) {
    put<u64>(data, at, entry.count);
    put<u16>(data, at + 8, entry.sq);
    put<u16>(data, at + 10, entry.command_id);
    put<u16>(data, at + 12, entry.status);
    put<u16>(data, at + 14, 0xffff);  // parameter error location: not told
    put<u64>(data, at + 16, entry.lba);
    put<u32>(data, at + 24, entry.nsid);
    at += 64;
  }
  return data;
}

std::vector<std::byte> LogPages::smart() const {
  constexpr u64 kUnit = 512 * 1000;
  const auto rounded_up = [](u64 bytes) { return (bytes + kUnit - 1) / kUnit; };
  const auto count = [&](IoOpcode opcode) { return counters_.io[static_cast<u8>(opcode)]; };
  const auto hours =
      std::chrono::duration_cast<std::chrono::hours>(std::chrono::steady_clock::now() - started_);
  std::vector<std::byte> data(512);
  put<u8>(data, 0, critical_warning());
  put<u16>(data, 1, kTemperature);
  put<u8>(data, 3, 100);  // available spare
  put<u8>(data, 4, 10);   // its threshold
  put<u8>(data, 5, 0);    // percentage used: nothing wears out here
  put<u64>(data, 32, rounded_up(counters_.bytes_read));
  put<u64>(data, 48, rounded_up(counters_.bytes_written));
  put<u64>(data, 64, count(IoOpcode::read) + count(IoOpcode::compare));
  put<u64>(data, 80, count(IoOpcode::write));
  put<u64>(data, 112, 1);  // power cycles: one life of the server is one
  put<u64>(data, 128, static_cast<u64>(hours.count()));
  put<u64>(data, 160, counters_.media_errors);
  put<u64>(data, 176, error_count_);
  return data;
}

std::vector<std::byte> LogPages::firmware() const {
  std::vector<std::byte> data(512);
  put<u8>(data, 0, 1);  // active: slot 1
  put_text(data, 8, 8, identity_.firmware);
  return data;
}

std::vector<std::byte> LogPages::effects() const {
  constexpr u32 kSupported = 1;        // CSUPP
  constexpr u32 kContent = 1u << 1;    // LBCC
  constexpr u32 kNamespace = 1u << 2;  // NCC
  constexpr u32 kAlone = 1u << 16;     // CSE: no other command to that namespace
  std::vector<std::byte> data(4096);
  const auto admin = [&](AdminOpcode op, u32 effects) {
    put<u32>(data, 4u * static_cast<u8>(op), kSupported | effects);
  };
  const auto io = [&](IoOpcode op, u32 effects) {
    put<u32>(data, 1024 + 4u * static_cast<u8>(op), kSupported | effects);
  };
  admin(AdminOpcode::delete_io_sq, 0);
  admin(AdminOpcode::create_io_sq, 0);
  admin(AdminOpcode::get_log_page, 0);
  admin(AdminOpcode::delete_io_cq, 0);
  admin(AdminOpcode::create_io_cq, 0);
  admin(AdminOpcode::identify, 0);
  admin(AdminOpcode::abort, 0);
  admin(AdminOpcode::set_features, 0);
  admin(AdminOpcode::get_features, 0);
  admin(AdminOpcode::async_event_request, 0);
  if (identity_.doorbell_buffer) admin(AdminOpcode::doorbell_buffer_config, 0);
  admin(AdminOpcode::format_nvm, kContent | kNamespace | kAlone);
  io(IoOpcode::flush, 0);
  io(IoOpcode::write, kContent);
  io(IoOpcode::read, 0);
  io(IoOpcode::compare, 0);
  io(IoOpcode::write_zeroes, kContent);
  io(IoOpcode::dataset_management, kContent);
  return data;
}

}  // namespace outboard::nvme
