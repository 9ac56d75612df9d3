#include "vfio_user/batch.h"

#include <utility>

namespace outboard::vfio_user {

void Batch::add(const Connection::Request& request) {
  if (calls_.size() >= window_) collect();
  PendingCall& call = calls_.emplace_back();
  auto sent = connection_.submit(call, request, calls_.size() == 1);
  if (sent && !*sent) {  // single flight: the earlier ones come first
    calls_.pop_back();
    collect();
    sent = connection_.submit(calls_.emplace_back(), request);
  }
  if (sent) {
    slots_.push_back(results_.size());
    results_.emplace_back();
  } else {
    calls_.pop_back();
    results_.emplace_back(tl::make_unexpected(std::move(sent.error())));
  }
}

void Batch::collect() {
  if (calls_.empty()) return;
  ++rounds_;
  for (std::size_t i = 0; i < calls_.size(); ++i) results_[slots_[i]] = connection_.wait(calls_[i]);
  calls_.clear();
  slots_.clear();
}

std::vector<Result<Reply>> Batch::finish() {
  collect();
  return std::exchange(results_, {});
}

}  // namespace outboard::vfio_user
