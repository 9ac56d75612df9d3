// Interrupts: SET_IRQS.
#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "vfio_user/batch.h"
#include "vfio_user/client_impl.h"
#include "vfio_user/text.h"

namespace outboard::vfio_user {

namespace {

/// Messages with descriptors in flight at once: few, since an unprivileged process may have only so
/// many descriptors on their way.
constexpr std::size_t kWindow = 16;

/// Vectors that go into one message: all with an eventfd, or all without.
struct Run {
  std::uint32_t start = 0;
  std::span<const int> fds;  // of all vectors, -1 in each when there is none
  [[nodiscard]] bool arms() const { return fds.front() >= 0; }
};

std::vector<Run> runs_of(std::uint32_t start, std::span<const int> eventfds, std::size_t most) {
  std::vector<Run> runs;
  while (!eventfds.empty()) {
    const bool arms = eventfds.front() >= 0;
    std::size_t size = 1;
    while (size < eventfds.size() && (eventfds[size] >= 0) == arms && (!arms || size < most)) {
      ++size;
    }
    runs.push_back({start, eventfds.first(size)});
    eventfds = eventfds.subspan(size);
    start += static_cast<std::uint32_t>(size);
  }
  return runs;
}

std::string irqs_text(std::uint32_t index, std::uint32_t start, std::size_t count) {
  return "SET_IRQS for " + irq_text(index) + " vectors " + std::to_string(start) + " to " +
         std::to_string(start + count - 1);
}

}  // namespace

Result<void> Client::Impl::check_irqs(std::uint32_t index, std::uint32_t start,
                                      std::uint64_t count) const {
  const Shape* const device = shape();
  if (device == nullptr) return {};
  const std::uint32_t have = index < device->irqs.size() ? device->irqs[index].count : 0;
  if (start > have || count > have - start) {
    return fail(Error::Kind::invalid, EINVAL,
                "the device has " + std::to_string(have) + " of them");
  }
  return {};
}

Result<void> Client::Impl::arm_irqs(std::uint32_t index, std::uint32_t start,
                                    std::span<const int> eventfds) {
  if (eventfds.empty()) return {};
  const std::string all = irqs_text(index, start, eventfds.size());
  if (auto good = check_irqs(index, start, eventfds.size()); !good) {
    return explain(good.error(), all);
  }
  const Shape* const device = shape();
  if (device != nullptr && !device->irqs[index].eventfd) {
    return explain({Error::Kind::invalid, ENOTSUP, "the server cannot signal it by eventfd"}, all);
  }
  const std::size_t most = std::min<std::size_t>(server_.max_msg_fds, wire::kMaxSocketFds);
  const bool arms = std::any_of(eventfds.begin(), eventfds.end(), [](int fd) { return fd >= 0; });
  if (arms && most == 0) {
    return explain({Error::Kind::limit, E2BIG, "the server takes no descriptors (max_msg_fds 0)"},
                   all);
  }

  const auto send = [&](Batch& batch, const Run& run, bool arm) {
    wire::SetIrqs set{sizeof set, wire::kSetIrqsDataEventfd | wire::kSetIrqsActionTrigger, index,
                      run.start, static_cast<std::uint32_t>(run.fds.size())};
    const iovec body{&set, sizeof set};
    batch.add({.command = wire::Command::device_set_irqs,
               .body = {&body, 1},
               .fds = arm ? run.fds : std::span<const int>(),
               .timeout = options_.timeouts.setup,
               .keep = 0});
  };
  const std::vector<Run> runs = runs_of(start, eventfds, std::max<std::size_t>(most, 1));
  Batch batch(*connection_, kWindow);
  for (const Run& run : runs) send(batch, run, run.arms());
  const std::vector<Result<Reply>> results = batch.finish();

  const auto bad =
      std::find_if(results.begin(), results.end(), [](const auto& r) { return !r.has_value(); });
  if (bad == results.end()) return {};
  // Half-armed vectors must not stay: disarm what this call armed, or may have armed.
  Batch rollback(*connection_, kWindow);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const bool may_be_armed =
        results[i].has_value() || results[i].error().kind == Error::Kind::timeout;
    if (runs[i].arms() && may_be_armed) send(rollback, runs[i], false);
  }
  static_cast<void>(rollback.finish());
  const Run& run = runs[static_cast<std::size_t>(bad - results.begin())];
  return explain(bad->error(), irqs_text(index, run.start, run.fds.size()));
}

Result<void> Client::Impl::disable_irqs(std::uint32_t index) {
  const Shape* const device = shape();
  // On an index without vectors servers answer EINVAL.
  if (device != nullptr && (index >= device->irqs.size() || device->irqs[index].count == 0)) {
    return {};
  }
  wire::SetIrqs set{sizeof set, wire::kSetIrqsDataNone | wire::kSetIrqsActionTrigger, index, 0, 0};
  const iovec body{&set, sizeof set};
  auto reply = connection_->call({.command = wire::Command::device_set_irqs,
                                  .body = {&body, 1},
                                  .fds = {},
                                  .timeout = options_.timeouts.setup,
                                  .keep = 0});
  if (!reply) return explain(reply.error(), "SET_IRQS to disable " + irq_text(index));
  return {};
}

Result<void> Client::Impl::act_on_irqs(std::uint32_t index, std::uint32_t start,
                                       std::uint32_t count, std::uint32_t action) {
  if (count == 0) return {};  // on the wire a trigger of nothing would disable the index
  const std::string what = irqs_text(index, start, count);
  if (auto good = check_irqs(index, start, count); !good) return explain(good.error(), what);
  wire::SetIrqs set{sizeof set, wire::kSetIrqsDataNone | action, index, start, count};
  const iovec body{&set, sizeof set};
  auto reply = connection_->call({.command = wire::Command::device_set_irqs,
                                  .body = {&body, 1},
                                  .fds = {},
                                  .timeout = options_.timeouts.setup,
                                  .keep = 0});
  if (!reply) return explain(reply.error(), what);
  return {};
}

}  // namespace outboard::vfio_user
