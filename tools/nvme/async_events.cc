#include "tools/nvme/async_events.h"

#include <algorithm>
#include <utility>

namespace outboard::nvme {

bool AsyncEvents::add(Request& request) {
  if (waiting_.size() >= limit_) return false;
  waiting_.push_back(&request);
  return true;
}

Request* AsyncEvents::remove(u16 sq, u16 command_id) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(), [&](const Request* r) {
    return r->sq == sq && r->command.id == command_id;
  });
  if (found == waiting_.end()) return nullptr;
  Request* request = *found;
  waiting_.erase(found);
  return request;
}

std::vector<Request*> AsyncEvents::clear() {
  events_.clear();
  masked_.fill(false);
  return std::exchange(waiting_, {});
}

void AsyncEvents::notify(EventType type, u8 info, LogId log) {
  const bool known = std::any_of(events_.begin(), events_.end(), [&](const Event& event) {
    return event.type == type && event.info == info;
  });
  if (!known && !masked_[static_cast<u8>(type)]) events_.push_back({type, info, log});
}

void AsyncEvents::log_read(LogId log) {
  if (log == LogId::error) masked_[static_cast<u8>(EventType::error)] = false;
  if (log == LogId::smart) masked_[static_cast<u8>(EventType::smart)] = false;
  // What the host has just read is no news any more.
  std::erase_if(events_, [&](const Event& event) { return event.log == log; });
}

Request* AsyncEvents::next() {
  if (waiting_.empty() || events_.empty()) return nullptr;
  const Event event = events_.front();
  events_.erase(events_.begin());
  masked_[static_cast<u8>(event.type)] = true;
  std::erase_if(events_, [&](const Event& other) { return other.type == event.type; });
  Request* request = waiting_.front();
  waiting_.erase(waiting_.begin());
  request->dw0 =
      static_cast<u32>(event.type) | u32{event.info} << 8 | static_cast<u32>(event.log) << 16;
  return request;
}

}  // namespace outboard::nvme
