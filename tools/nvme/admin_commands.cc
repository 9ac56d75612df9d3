#include "tools/nvme/admin_commands.h"

#include <algorithm>
#include <utility>

namespace outboard::nvme {

namespace {

// In more stores than one, and at once: what the journal must be able to undo.
bool changes_state(AdminOpcode opcode) {
  switch (opcode) {
    case AdminOpcode::create_io_sq:
    case AdminOpcode::delete_io_cq:
    case AdminOpcode::create_io_cq:
    case AdminOpcode::set_features:
    case AdminOpcode::doorbell_buffer_config:
      return true;
    case AdminOpcode::delete_io_sq:  // begins at its end, in settle()
    case AdminOpcode::get_log_page:
    case AdminOpcode::identify:
    case AdminOpcode::abort:
    case AdminOpcode::get_features:
    case AdminOpcode::async_event_request:
    case AdminOpcode::format_nvm:
      break;
  }
  return false;
}

}  // namespace

void AdminCommands::execute(Request& request) {
  u32 dw0 = 0;
  bool later = false;
  const bool effect = changes_state(static_cast<AdminOpcode>(request.command.opcode));
  if (effect) core_.journal.begin_effect(request.slot);
  const Status status = run(request, dw0, later);
  if (!later) engine_.finish(request, status, dw0);
}

Status AdminCommands::run(Request& request, u32& dw0, bool& later) {
  const Command& command = request.command;
  // §4.2: no fused admin commands; §4.4: admin commands use PRPs on PCIe.
  if (command.fuse() != 0 || command.pointer_type() != 0) return Status::invalid_field;
  switch (static_cast<AdminOpcode>(command.opcode)) {
    case AdminOpcode::delete_io_sq:
      return delete_sq(request, later);
    case AdminOpcode::create_io_sq:
      return create_sq(command);
    case AdminOpcode::get_log_page:
      return get_log_page(request);
    case AdminOpcode::delete_io_cq:
      return delete_cq(command);
    case AdminOpcode::create_io_cq:
      return create_cq(command);
    case AdminOpcode::identify:
      return identify_command(request);
    case AdminOpcode::abort:
      return abort(command, dw0);
    case AdminOpcode::set_features:
      return set_features(request, dw0);
    case AdminOpcode::get_features:
      return get_features(request, dw0);
    case AdminOpcode::async_event_request:
      if (!core_.events.add(request)) return Status::async_event_limit_exceeded;
      later = true;
      return Status::success;
    case AdminOpcode::doorbell_buffer_config:
      if (!core_.identity.doorbell_buffer) break;
      return doorbell_buffer_config(command);
    case AdminOpcode::format_nvm:
      break;
  }
  return Status::invalid_opcode;
}

// §5.3, §5.4: PRP1 of a contiguous queue.
Status AdminCommands::queue_memory(const Command& command, u64 bytes, Access access) {
  if ((command.pointer1 & (core_.page_size - 1)) != 0) return Status::prp_offset_invalid;
  if (!core_.dma.translate(command.pointer1, bytes, access).empty()) return Status::success;
  // Not mapped here, or over two windows: it must at least be readable where it starts and ends.
  std::byte probe;
  if (bytes - 1 > ~command.pointer1 || !core_.dma.read(command.pointer1, {&probe, 1}) ||
      !core_.dma.read(command.pointer1 + bytes - 1, {&probe, 1})) {
    return Status::invalid_field;
  }
  return Status::success;
}

Status AdminCommands::create_cq(const Command& command) {
  const u16 id = static_cast<u16>(command.dw10);
  const u32 entries = (command.dw10 >> 16) + 1;
  const u16 vector = static_cast<u16>(command.dw11 >> 16);
  const bool interrupts = (command.dw11 & 2) != 0;
  if (id == 0 || id > core_.state.features.io_queues || core_.queues.cq(id).live != 0) {
    return Status::invalid_queue_identifier;
  }
  if (entries < 2 || entries > kMaxQueueEntries) return Status::invalid_queue_size;
  if ((core_.state.registers.cc >> 20 & 0xf) != 4) return Status::invalid_queue_size;  // IOCQES
  if ((command.dw11 & 1) == 0) return Status::invalid_field;  // CAP.CQR: contiguous only
  const u16 vectors = core_.interrupts.message_signalled() ? core_.vectors : u16{1};
  if (interrupts && vector >= vectors) return Status::invalid_interrupt_vector;
  if (const Status s = queue_memory(command, u64{entries} * sizeof(Completion), Access::write);
      s != Status::success) {
    return s;
  }
  core_.queues.create_cq(id, command.pointer1, entries, vector, interrupts);
  return Status::success;
}

Status AdminCommands::create_sq(const Command& command) {
  const u16 id = static_cast<u16>(command.dw10);
  const u32 entries = (command.dw10 >> 16) + 1;
  const u16 cq = static_cast<u16>(command.dw11 >> 16);
  if (id == 0 || id > core_.state.features.io_queues || core_.queues.sq(id).live != 0) {
    return Status::invalid_queue_identifier;
  }
  if (cq == 0 || cq > core_.state.features.io_queues) return Status::invalid_queue_identifier;
  if (core_.queues.cq(cq).live == 0) return Status::completion_queue_invalid;
  if (entries < 2 || entries > kMaxQueueEntries) return Status::invalid_queue_size;
  if ((core_.state.registers.cc >> 16 & 0xf) != 6) return Status::invalid_queue_size;  // IOSQES
  if ((command.dw11 & 1) == 0) return Status::invalid_field;
  if (const Status s = queue_memory(command, u64{entries} * sizeof(Command), Access::read);
      s != Status::success) {
    return s;
  }
  core_.queues.create_sq(id, cq, command.pointer1, entries);
  return Status::success;
}

// §5.7: PRP1 the doorbells, PRP2 the EventIdx values, a page each.
Status AdminCommands::doorbell_buffer_config(const Command& command) {
  const u64 offset = (command.pointer1 | command.pointer2) & (core_.page_size - 1);
  if (offset != 0) return Status::prp_offset_invalid;
  if (command.pointer1 == command.pointer2) return Status::invalid_field;
  // Memory that only messages reach has no place here: each look would be a question to the client.
  return core_.queues.use_shadow(command.pointer1, command.pointer2, core_.page_size)
             ? Status::success
             : Status::invalid_field;
}

Status AdminCommands::delete_cq(const Command& command) {
  const u16 id = static_cast<u16>(command.dw10);
  if (id == 0 || id >= kMaxQueues || core_.queues.cq(id).live == 0) {
    return Status::invalid_queue_identifier;
  }
  if (core_.queues.cq_has_sqs(id)) return Status::invalid_queue_deletion;
  core_.queues.delete_cq(id);
  return Status::success;
}

Status AdminCommands::delete_sq(Request& request, bool& later) {
  const u16 id = static_cast<u16>(request.command.dw10);
  if (id == 0 || id >= kMaxQueues || core_.queues.sq(id).live == 0 ||
      core_.queues.sq(id).deleting != 0) {
    return Status::invalid_queue_identifier;
  }
  // Commands already fetched are carried out and answered first.
  core_.queues.start_deleting(id);
  deletions_.push_back(&request);
  later = true;
  return Status::success;
}

void AdminCommands::settle() {
  for (std::size_t i = 0; i < deletions_.size();) {
    Request& request = *deletions_[i];
    const u16 id = static_cast<u16>(request.command.dw10);
    if (core_.queues.outstanding(id) != 0) {
      ++i;
      continue;
    }
    core_.journal.begin_effect(request.slot);
    core_.queues.delete_sq(id);
    deletions_.erase(deletions_.begin() + static_cast<std::ptrdiff_t>(i));
    engine_.finish(request, Status::success);
  }
  while (Request* request = core_.events.next()) {
    engine_.finish(*request, Status::success, request->dw0);
  }
}

std::vector<Request*> AdminCommands::take_waiting() {
  std::vector<Request*> waiting = std::exchange(deletions_, {});
  const std::vector<Request*> events = core_.events.clear();
  waiting.insert(waiting.end(), events.begin(), events.end());
  return waiting;
}

Status AdminCommands::to_guest(Request& request, std::span<const std::byte> data) {
  const Status status =
      request.data.resolve(request.command, data.size(), core_.page_size, Access::write, core_.dma);
  if (status != Status::success) return status;
  return request.data.scatter(data, core_.dma) ? Status::success : Status::data_transfer_error;
}

Status AdminCommands::identify_command(Request& request) {
  IdentifyData data;
  const Status status = identify(request.command, core_.identity, core_.namespaces, data);
  return status == Status::success ? to_guest(request, data) : status;
}

Status AdminCommands::get_log_page(Request& request) {
  const Command& command = request.command;
  const u64 dwords = ((command.dw11 & 0xffff) << 16 | command.dw10 >> 16) + u64{1};
  const u64 offset = u64{command.dw13} << 32 | command.dw12;
  const bool retain = (command.dw10 >> 15 & 1) != 0;
  const auto id = static_cast<LogId>(command.dw10 & 0xff);
  const std::vector<std::byte> page = core_.logs.page(id);
  if (page.empty()) return Status::invalid_log_page;
  if (id == LogId::smart && command.nsid != 0 && command.nsid != kBroadcastNamespace) {
    return Status::invalid_field;  // Identify offers none per namespace
  }
  if (dwords * 4 > core_.largest_transfer()) return Status::invalid_field;
  if (offset % 4 != 0 || offset > page.size()) return Status::invalid_field;
  // Past the end of a page there are zeros.
  std::vector<std::byte> data(dwords * 4);
  const std::size_t there = std::min<std::size_t>(data.size(), page.size() - offset);
  std::copy_n(page.begin() + static_cast<std::ptrdiff_t>(offset), there, data.begin());
  const Status status = to_guest(request, data);
  if (status == Status::success && !retain) core_.events.log_read(id);
  return status;
}

Status AdminCommands::set_features(Request& request, u32& dw0) {
  std::array<std::byte, 8> data{};
  if (Features::has_data(request.command)) {
    const Status status = request.data.resolve(request.command, data.size(), core_.page_size,
                                               Access::read, core_.dma);
    if (status != Status::success) return status;
    if (!request.data.gather(data, core_.dma)) return Status::data_transfer_error;
  }
  const u8 before = core_.logs.critical_warning();
  const Status status = core_.features.set(request.command, core_.queues.any_io_queue(), data, dw0);
  const u8 warning = core_.logs.critical_warning();
  if ((warning & ~before & core_.state.features.async_events & 2) != 0) {
    core_.events.notify(EventType::smart, kEventTemperature, LogId::smart);
  }
  return status;
}

Status AdminCommands::get_features(Request& request, u32& dw0) {
  std::array<std::byte, 8> data{};
  const Status status = core_.features.get(request.command, data, dw0);
  const bool values = (request.command.dw10 >> 8 & 7) != 3;
  if (status != Status::success || !values || !Features::has_data(request.command)) return status;
  return to_guest(request, data);
}

// §5.1: dword 0 bit 0 clear: aborted. A command that the backend has is let finish.
Status AdminCommands::abort(const Command& command, u32& dw0) {
  const u16 sq = static_cast<u16>(command.dw10);
  const u16 id = static_cast<u16>(command.dw10 >> 16);
  dw0 = 1;
  if (Request* event = core_.events.remove(sq, id); event != nullptr) {
    engine_.finish(*event, Status::abort_requested);
    dw0 = 0;
  }
  return Status::success;
}

}  // namespace outboard::nvme
