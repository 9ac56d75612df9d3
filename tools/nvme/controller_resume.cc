// Going on where a killed server stopped. What it left is described in saved_state.h, and why no
// kill leaves anything else in journal.h; the registers' share is here.
#include <utility>

#include "tools/nvme/controller.h"

namespace outboard::nvme {

void Controller::take_over() {
  Registers& r = core_.state.registers;
  const bool enabled = (r.cc & kCcEnable) != 0;
  const bool ready = (r.csts & kCstsReady) != 0;
  for (u32 i = 0; i < core_.namespaces.size(); ++i) {
    Namespace& ns = core_.namespaces[i];
    const u32 shift = core_.journal.block_shift(i);
    if (shift == 0 || shift == ns.block_shift) continue;
    ns.block_shift = shift;
    ns.backend->set_block_size(ns.block_size());
  }
  const bool queues = core_.state.sq[0].live != 0 && core_.state.cq[0].live != 0;
  if (enabled && ready && queues) {
    core_.journal.take_over();
    core_.page_size = 4096u << (r.cc >> 7 & 0xf);
    core_.queues.take_over();
    suspended_ = !fatal_state();
    shutting_down_ = (r.csts & kCstsShutdownMask) == kCstsShutdownOccurring;
  } else {
    // Killed in a reset or in an enabling, or it was off. A reset is made whole, then the enabling,
    // before the client repeats the write of CC that it has seen no answer to.
    core_.journal.clear();
    core_.queues.clear();
    if (ready) {
      r.csts = 0;
      r.interrupt_mask = 0;
      core_.features.reset();
    }
    keep_order();
    if (enabled && !fatal_state()) enable();
  }
  // The same for a shutdown that CC asks for and CSTS does not know.
  if ((r.cc >> 14 & 3) != 0 && (r.csts & kCstsShutdownMask) == 0) begin_shutdown();
}

void Controller::resume() {
  if (!std::exchange(suspended_, false)) return;
  std::vector<Request*> again;
  std::vector<Request*> answered;
  const std::vector<u32> slots = core_.journal.in_order();
  for (const u32 slot : slots) {
    while (requests_.size() <= slot) add_request();
  }
  std::vector<bool> taken(requests_.size());
  for (const u32 slot : slots) {
    const InFlight& record = core_.journal.record(slot);
    Request& request = *requests_[slot];
    taken[slot] = true;
    request.command = record.command;
    prepare(request, record.sq);
    if (record.step == InFlight::fetched) {
      again.push_back(&request);
      continue;
    }
    request.status = static_cast<Status>(record.status);
    request.dw0 = record.dw0;
    if (record.step == InFlight::posting && core_.queues.entry_is_there(record)) {
      core_.journal.done(slot);
      core_.queues.forget(request);
      taken[slot] = false;
    } else if (record.step == InFlight::posting) {
      answered.insert(answered.begin(), &request);
    } else {
      answered.push_back(&request);
    }
  }
  for (u32 slot = 0; slot < taken.size(); ++slot) {
    if (!taken[slot]) free_.push_back(requests_[slot].get());
  }
  for (Request* request : answered) {
    if (!core_.queues.post(*request)) {
      fatal();
      release(*request);
    }
  }
  for (Request* request : again) {
    if (fatal_state()) break;
    execute(*request);
  }
  kick();
  if (!core_.interrupts.message_signalled()) core_.interrupts.set_pin(pin_level());
}

}  // namespace outboard::nvme
