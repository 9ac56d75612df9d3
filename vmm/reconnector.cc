#include "vmm/reconnector.h"

#include <algorithm>
#include <exception>
#include <utility>

#include <fmt/core.h>

namespace outboard::vmm {
namespace {

using devices::Reconnected;
using std::chrono::milliseconds;

// While accesses wait, a server that is back is found within this time.
constexpr milliseconds kLongestDelayInHold{50};
// A server of ours that runs, but serves nobody for this long, is started anew.
constexpr milliseconds kStubborn{1000};

}  // namespace

void LossSignal::raise() {
  {
    const std::lock_guard lock(mutex_);
    raised_ = true;
  }
  changed_.notify_all();
}

void LossSignal::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

bool LossSignal::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return raised_ || stopped_; });
  raised_ = false;
  return !stopped_;
}

bool LossSignal::pause(milliseconds time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time, [this] { return stopped_; });
  return !stopped_;
}

Reconnector::Reconnector(Parts parts, std::shared_ptr<LossSignal> loss)
    : parts_(std::move(parts)), loss_(std::move(loss)), back_since_(Clock::now()) {
  thread_ = std::thread([this] { run(); });
}

Reconnector::~Reconnector() {
  cancel();
  thread_.join();
}

void Reconnector::cancel() {
  cancel_.cancel();
  loss_->stop();
}

void Reconnector::run() {
  enter(parts_.sandbox, ThreadKind::reconnect, parts_.config.name);
  while (loss_->wait()) {
    try {
      if (!recover()) return;
    } catch (const std::exception& error) {
      parts_.function.give_up(error.what());
      return;
    }
  }
}

bool Reconnector::recover() {
  const ReconnectConfig& policy = parts_.config.reconnect;
  const Clock::time_point lost = parts_.function.lost_at();
  parts_.function.disconnect();
  // A connection that lasted starts the back-off anew; servers that die at once do not.
  if (lost - back_since_ >= policy.last_delay) delay_ = milliseconds(0);
  std::string why;  // of the last attempt
  for (;;) {
    if (!loss_->pause(delay_)) return false;
    const auto since = Clock::now() - lost;
    if (since >= policy.deadline) {
      parts_.function.give_up(fmt::format("its server was not back within {} ms{}{}",
                                          policy.deadline.count(),
                                          why.empty() ? "" : "; the last attempt: ", why));
      return false;
    }
    delay_ = delay_after(delay_, since < policy.hold);
    parts_.function.trying();
    const Reconnected outcome = attempt(since >= kStubborn);
    if (cancel_.cancelled()) return false;
    switch (outcome.kind) {
      case Reconnected::Kind::resumed:
      case Reconnected::Kind::reset:
        back_since_ = Clock::now();
        return true;
      case Reconnected::Kind::refused:
        parts_.function.give_up(outcome.why);
        return false;
      case Reconnected::Kind::lost:
        why = outcome.why;
        parts_.function.not_yet(why);
        break;
    }
  }
}

Reconnected Reconnector::attempt(bool insist) {
  const auto failed = [](const vfio_user::Error& error) {
    return Reconnected{Reconnected::Kind::lost, error.message};
  };
  std::string path = parts_.config.socket;
  if (parts_.find_socket) {
    auto found = parts_.find_socket(parts_.config, insist, cancel_.fd());
    if (!found) return failed(found.error());
    path = *found;
  }
  auto device = connect_device({.config = parts_.config,
                                .memory = parts_.memory,
                                .observer = parts_.observer,
                                .marks = nullptr,
                                .sandbox = parts_.sandbox},
                               path, cancel_);
  cancel_.forget_socket();
  if (!device) return failed(device.error());
  return parts_.function.reconnect(std::move(device->client), std::move(device->description),
                                   std::move(device->signals));
}

milliseconds Reconnector::delay_after(milliseconds delay, bool holding) const {
  const ReconnectConfig& policy = parts_.config.reconnect;
  const auto longest =
      holding ? std::min(policy.last_delay, kLongestDelayInHold) : policy.last_delay;
  return std::clamp(delay * 2, std::min(policy.first_delay, longest), longest);
}

}  // namespace outboard::vmm
