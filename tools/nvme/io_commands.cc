#include "tools/nvme/io_commands.h"

#include <cerrno>
#include <cstring>

namespace outboard::nvme {
namespace {

using Kind = BackendRequest::Kind;
using Step = Request::Step;

constexpr u32 kForceUnitAccess = 1u << 30;   // dword 12 of read, write, compare, write zeroes
constexpr u32 kDeallocate = 1u << 25;        // DEAC, dword 12 of write zeroes
constexpr u32 kDatasetDeallocate = 1u << 2;  // AD, dword 11 of dataset management
constexpr std::size_t kMaxParts = 1000;      // below IOV_MAX

u64 start_block(const Command& command) {
  return u64{command.dw11} << 32 | command.dw10;
}
u64 block_count(const Command& command) {
  return (command.dw12 & 0xffff) + 1u;
}

bool forced(const Request& request) {
  return (request.command.dw12 & kForceUnitAccess) != 0;
}

}  // namespace

Status status_of(int error, Kind kind) {
  switch (error) {
    case 0:
      return Status::success;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Status::capacity_exceeded;
    case EROFS:
    case EPERM:
    case EACCES:
    case EBADF:
      if (kind != Kind::read) return Status::namespace_write_protected;
      return Status::unrecovered_read;
    case ENOMEM:
    case EAGAIN:
      return Status::internal_error;
    default:
      return kind == Kind::read ? Status::unrecovered_read : Status::write_fault;
  }
}

bool IoCommands::durable(const Request& request) const {
  return forced(request) || core_.features.values().write_cache == 0;
}

void IoCommands::execute(Request& request) {
  request.ns = nullptr;
  request.step = Step::finish;
  request.done_bytes = 0;
  Namespace* ns = core_.find(request.command.nsid);
  const Status status = begin(request, ns);
  if (status != Status::success) finish(request, status);
}

Status IoCommands::begin(Request& request, Namespace* ns) {
  const Command& command = request.command;
  const auto opcode = static_cast<IoOpcode>(command.opcode);
  switch (opcode) {
    case IoOpcode::flush:
    case IoOpcode::write:
    case IoOpcode::read:
    case IoOpcode::compare:
    case IoOpcode::write_zeroes:
    case IoOpcode::dataset_management:
      break;
    default:
      return Status::invalid_opcode;
  }
  if (command.fuse() != 0) return Status::invalid_field;
  if (opcode == IoOpcode::flush && command.nsid == kBroadcastNamespace) {
    request.next = 0;
    request.step = Step::flush_next;
    flush_from(request);
    return Status::success;
  }
  if (ns == nullptr) return Status::invalid_namespace;
  if (ns->formatting) return Status::format_in_progress;
  switch (opcode) {
    case IoOpcode::flush:
      request.kind = Kind::flush;
      request.ns = ns;
      ++ns->in_flight;
      engine_.start(request, *ns);
      return Status::success;
    case IoOpcode::write:
    case IoOpcode::read:
    case IoOpcode::compare:
      return begin_transfer(request, *ns);
    case IoOpcode::write_zeroes:
      return begin_zeroes(request, *ns);
    case IoOpcode::dataset_management:
      return begin_dataset(request, *ns);
  }
  return Status::invalid_opcode;
}

Status IoCommands::check_range(const Namespace& ns, u64 start, u64 blocks) const {
  const u64 all = ns.blocks();
  return start >= all || blocks > all - start ? Status::lba_out_of_range : Status::success;
}

Status IoCommands::begin_transfer(Request& request, Namespace& ns) {
  const Command& command = request.command;
  const auto opcode = static_cast<IoOpcode>(command.opcode);
  const bool writes = opcode == IoOpcode::write;
  const u64 blocks = block_count(command);
  const u64 bytes = blocks << ns.block_shift;
  if (bytes > core_.largest_transfer()) return Status::invalid_field;
  if (writes && (command.dw12 >> 20 & 0xf) != 0) return Status::invalid_field;  // directives
  if (const Status s = check_range(ns, start_block(command), blocks); s != Status::success) {
    return s;
  }
  if (writes && ns.read_only) return Status::namespace_write_protected;
  const Access towards = opcode == IoOpcode::read ? Access::write : Access::read;
  if (const Status s = request.data.resolve(command, bytes, core_.page_size, towards, core_.dma);
      s != Status::success) {
    return s;
  }

  request.kind = writes ? Kind::write : Kind::read;
  request.offset = start_block(command) << ns.block_shift;
  request.length = bytes;
  request.durable = writes && durable(request);

  // Straight to or from guest memory when the backend can, else through a buffer of our own. A
  // comparison needs one in any case.
  const u32 misaligned = ns.backend->memory_alignment() - 1;
  bool direct = !ns.buffered && request.data.direct && opcode != IoOpcode::compare &&
                request.data.pieces.size() <= kMaxParts;
  for (const Piece& piece : request.data.pieces) {
    direct =
        direct && ((reinterpret_cast<std::uintptr_t>(piece.host) | piece.length) & misaligned) == 0;
  }
  request.bounced = !direct;
  if (!direct) {
    ++core_.counters.bounced;
    const auto buffer = request.bounce.acquire(bytes);
    if (writes && !request.data.gather(buffer, core_.dma)) {
      request.bounce.release();
      request.bounced = false;
      return Status::data_transfer_error;
    }
  }
  request.ns = &ns;
  ++ns.in_flight;
  if (!writes && forced(request) && ns.backend->volatile_cache()) {
    // §6.9: what is read must be on the media first.
    request.step = Step::read;
    request.kind = Kind::flush;
    request.parts.clear();
    engine_.start(request, ns);
  } else {
    start_transfer(request);
  }
  return Status::success;
}

void IoCommands::start_transfer(Request& request) {
  request.parts.clear();
  if (request.bounced) {
    const auto buffer = request.bounce.bytes();
    request.parts.push_back({buffer.data(), buffer.size()});
  } else {
    for (const Piece& piece : request.data.pieces) {
      request.parts.push_back({piece.host, piece.length});
    }
  }
  request.step = Step::finish;
  engine_.start(request, *request.ns);
}

Status IoCommands::begin_zeroes(Request& request, Namespace& ns) {
  const Command& command = request.command;
  const u64 blocks = block_count(command);
  if (const Status s = check_range(ns, start_block(command), blocks); s != Status::success) {
    return s;
  }
  if (ns.read_only) return Status::namespace_write_protected;
  request.kind = Kind::write_zeroes;
  request.may_discard = (command.dw12 & kDeallocate) != 0;
  request.offset = start_block(command) << ns.block_shift;
  request.length = blocks << ns.block_shift;
  request.parts.clear();
  request.step = durable(request) && ns.backend->volatile_cache() ? Step::sync : Step::finish;
  request.ns = &ns;
  ++ns.in_flight;
  engine_.start(request, ns);
  return Status::success;
}

Status IoCommands::begin_dataset(Request& request, Namespace& ns) {
  const Command& command = request.command;
  const u32 count = (command.dw10 & 0xff) + 1;
  request.ranges.resize(count);
  const auto bytes = std::as_writable_bytes(std::span(request.ranges));
  if (const Status s =
          request.data.resolve(command, bytes.size(), core_.page_size, Access::read, core_.dma);
      s != Status::success) {
    return s;
  }
  if (!request.data.gather(bytes, core_.dma)) return Status::data_transfer_error;
  for (const DatasetRange& range : request.ranges) {
    if (range.blocks == 0) continue;
    if (const Status s = check_range(ns, range.start, range.blocks); s != Status::success) {
      return s;
    }
  }
  const bool deallocate = (command.dw11 & kDatasetDeallocate) != 0;
  if (deallocate && ns.read_only) return Status::namespace_write_protected;
  request.ns = &ns;
  ++ns.in_flight;
  request.next = deallocate ? 0 : count;  // the other attributes are hints
  discard_next(request);
  return Status::success;
}

void IoCommands::discard_next(Request& request) {
  Namespace& ns = *request.ns;
  while (request.next < request.ranges.size() && request.ranges[request.next].blocks == 0) {
    ++request.next;
  }
  request.parts.clear();
  if (request.next == request.ranges.size()) {
    const bool deallocated = (request.command.dw11 & kDatasetDeallocate) != 0;
    if (!deallocated || core_.features.values().write_cache != 0 || !ns.backend->volatile_cache()) {
      finish(request, Status::success);
      return;
    }
    request.kind = Kind::flush;
    request.step = Step::finish;
  } else {
    const DatasetRange& range = request.ranges[request.next++];
    request.kind = Kind::discard;
    request.offset = range.start << ns.block_shift;
    request.length = u64{range.blocks} << ns.block_shift;
    request.step = Step::discard_next;
  }
  engine_.start(request, ns);
}

void IoCommands::flush_from(Request& request) {
  if (request.next == core_.namespaces.size()) {
    finish(request, Status::success);
    return;
  }
  request.kind = Kind::flush;
  request.parts.clear();
  engine_.start(request, core_.namespaces[request.next++]);
}

void IoCommands::advance(Request& request) {
  if (request.error != 0) {
    finish(request, status_of(request.error, request.kind));
    return;
  }
  switch (request.step) {
    case Step::read:
      request.kind = Kind::read;
      start_transfer(request);
      return;
    case Step::sync:
      request.kind = Kind::flush;
      request.step = Step::finish;
      engine_.start(request, *request.ns);
      return;
    case Step::flush_next:
      flush_from(request);
      return;
    case Step::discard_next:
      discard_next(request);
      return;
    case Step::finish:
    case Step::erase_next:
      deliver(request);
      return;
  }
}

// The backend is done for good: hand the data over, or compare it.
void IoCommands::deliver(Request& request) {
  const u64 bytes = request.length;
  switch (static_cast<IoOpcode>(request.command.opcode)) {
    case IoOpcode::read:
      if (request.bounced && !request.data.scatter(request.bounce.bytes(), core_.dma)) {
        finish(request, Status::data_transfer_error);
        return;
      }
      core_.counters.bytes_read += bytes;
      break;
    case IoOpcode::write:
      core_.counters.bytes_written += bytes;
      break;
    case IoOpcode::compare: {
      AlignedBuffer expected;
      const auto buffer = expected.acquire(bytes);
      if (!request.data.gather(buffer, core_.dma)) {
        finish(request, Status::data_transfer_error);
        return;
      }
      if (std::memcmp(buffer.data(), request.bounce.bytes().data(), bytes) != 0) {
        finish(request, Status::compare_failure);
        return;
      }
      core_.counters.bytes_read += bytes;
      break;
    }
    default:
      break;
  }
  finish(request, Status::success);
}

void IoCommands::finish(Request& request, Status status) {
  if (request.ns != nullptr) {
    --request.ns->in_flight;
    request.ns = nullptr;
  }
  if (status == Status::unrecovered_read || status == Status::write_fault) {
    ++core_.counters.media_errors;
  }
  request.bounced = false;
  request.bounce.release();
  engine_.finish(request, status);
}

}  // namespace outboard::nvme
