#include "tools/nvme/shadow_doorbells.h"

#include <utility>

namespace outboard::nvme {

bool ShadowDoorbells::configure(u64 doorbells, u64 events, u64 bytes) {
  const ShadowState before = std::exchange(state_, {doorbells, events, bytes});
  forget_host_memory();
  if (reachable()) return true;
  state_ = before;
  return false;
}

bool ShadowDoorbells::reachable() {
  if (!values_.empty()) return true;
  const auto values = dma_.translate(state_.doorbells, state_.bytes, Access::write);
  const auto events = dma_.translate(state_.events, state_.bytes, Access::write);
  if (values.empty() || events.empty()) return false;
  values_ = values;
  events_ = events;
  return true;
}

}  // namespace outboard::nvme
