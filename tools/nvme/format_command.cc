#include "tools/nvme/format_command.h"

#include <algorithm>

#include "tools/nvme/io_commands.h"

namespace outboard::nvme {
namespace {

u32 block_shift(const Command& command) {
  return (command.dw10 & 0xf) == 1 ? 12 : 9;
}

}  // namespace

bool FormatCommand::selected(const Command& command, u32 index) const {
  return command.nsid == kBroadcastNamespace || command.nsid == index + 1;
}

Status FormatCommand::check(const Command& command) const {
  if (command.fuse() != 0 || command.pointer_type() != 0) return Status::invalid_field;
  if (command.nsid != kBroadcastNamespace && core_.find(command.nsid) == nullptr) {
    return Status::invalid_namespace;
  }
  if (active_ != nullptr) return Status::format_in_progress;
  const u32 format = command.dw10 & 0xf;
  const u32 protection = command.dw10 >> 4 & 0x1f;  // MSET, PI, PIL
  const u32 erase = command.dw10 >> 9 & 7;          // 0 none, 1 user data, 2 cryptographic
  if (format >= kFormats) return Status::invalid_format;
  if (protection != 0) return Status::invalid_format;
  if (erase > 1) return Status::invalid_field;
  for (u32 i = 0; i < core_.namespaces.size(); ++i) {
    if (!selected(command, i)) continue;
    const Namespace& ns = core_.namespaces[i];
    if (ns.read_only) return Status::namespace_write_protected;
    if (ns.backend->size() % (u64{1} << block_shift(command)) != 0) return Status::invalid_format;
  }
  return Status::success;
}

void FormatCommand::execute(Request& request) {
  if (const Status status = check(request.command); status != Status::success) {
    engine_.finish(request, status);
    return;
  }
  active_ = &request;
  waiting_ = true;
  request.ns = nullptr;
  for (u32 i = 0; i < core_.namespaces.size(); ++i) {
    if (selected(request.command, i)) core_.namespaces[i].formatting = true;
  }
}

void FormatCommand::settle() {
  if (!waiting_) return;
  for (const Namespace& ns : core_.namespaces) {
    if (ns.formatting && ns.in_flight != 0) return;
  }
  waiting_ = false;
  active_->next = 0;
  next_namespace(*active_);
}

void FormatCommand::next_namespace(Request& request) {
  while (request.next < core_.namespaces.size() && !selected(request.command, request.next)) {
    ++request.next;
  }
  if (request.next == core_.namespaces.size()) {
    end(request, Status::success);
    return;
  }
  request.done_bytes = 0;
  erase(request);
}

// Every format erases: after a change of block size the old content means nothing, and what a
// secure erase promises (§5.23: no user data remains) is then true of every format.
void FormatCommand::erase(Request& request) {
  Namespace& ns = core_.namespaces[request.next];
  request.parts.clear();
  if (request.done_bytes == ns.backend->size()) {
    request.kind = BackendRequest::Kind::flush;
    request.step = Request::Step::finish;
  } else {
    request.kind = BackendRequest::Kind::write_zeroes;
    request.may_discard = true;
    request.offset = request.done_bytes;
    request.length = std::min(kEraseStep, ns.backend->size() - request.done_bytes);
    request.step = Request::Step::erase_next;
    request.done_bytes += request.length;
  }
  engine_.start(request, ns);
}

void FormatCommand::advance(Request& request) {
  if (request.error != 0) {
    end(request, status_of(request.error, BackendRequest::Kind::write));
    return;
  }
  if (request.step == Request::Step::erase_next) {
    erase(request);
    return;
  }
  Namespace& ns = core_.namespaces[request.next];
  ns.block_shift = block_shift(request.command);
  ns.backend->set_block_size(ns.block_size());
  core_.journal.block_shift(request.next, ns.block_shift);
  ++request.next;
  next_namespace(request);
}

void FormatCommand::end(Request& request, Status status) {
  for (Namespace& ns : core_.namespaces) ns.formatting = false;
  active_ = nullptr;
  waiting_ = false;
  engine_.finish(request, status);
}

Request* FormatCommand::cancel() {
  for (Namespace& ns : core_.namespaces) ns.formatting = false;
  Request* request = waiting_ ? active_ : nullptr;
  active_ = nullptr;
  waiting_ = false;
  return request;
}

}  // namespace outboard::nvme
