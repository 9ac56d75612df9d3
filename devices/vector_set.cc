#include "devices/vector_set.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace outboard::devices {
namespace {

// Remembers the first failure of a pass that goes on regardless.
void keep_first(Result<void>& first, Result<void> next) {
  if (first && !next) first = std::move(next);
}

}  // namespace

VectorSet::VectorSet(std::uint32_t irq_index, std::uint32_t count, bool server_masks,
                     DeviceIrqs& device, MsiRouter& router, std::uint16_t requester)
    : irq_index_(irq_index),
      server_masks_(server_masks),
      device_(device),
      router_(router),
      requester_(requester),
      vectors_(count) {}

VectorSet::~VectorSet() {
  drop();
}

Result<void> VectorSet::update(std::uint32_t first, std::uint32_t count, const Wanted& wanted) {
  const std::uint32_t begin = std::min(first, this->count());
  const std::uint32_t end = begin + std::min(count, this->count() - begin);
  Result<void> outcome;
  disconnect_masked(begin, end, wanted);
  keep_first(outcome, arm_new(begin, end, wanted));
  keep_first(outcome, route_unmasked(begin, end, wanted));
  keep_first(outcome, connect_unmasked(begin, end, wanted));
  if (server_masks_) tell_server_masks(begin, end, wanted);
  return outcome;
}

Result<void> VectorSet::arm_new(std::uint32_t first, std::uint32_t end, const Wanted& wanted) {
  const auto is_new = [&](std::uint32_t i) { return !vectors_[i].eventfd && wanted(i).used; };
  Result<void> outcome;
  for (std::uint32_t at = first; at < end;) {
    if (!is_new(at)) {
      ++at;
      continue;
    }
    std::uint32_t run_end = at + 1;
    while (run_end < end && is_new(run_end)) ++run_end;
    keep_first(outcome, arm_run(at, run_end));
    at = run_end;
  }
  return outcome;
}

Result<void> VectorSet::arm_run(std::uint32_t first, std::uint32_t end) {
  std::vector<vfio_user::UniqueFd> owned;
  std::vector<int> fds;
  for (std::uint32_t i = first; i < end; ++i) {
    owned.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!owned.back()) {
      const int code = errno;
      return failure(std::string("no eventfd for an interrupt vector: ") + std::strerror(code),
                     code);
    }
    fds.push_back(owned.back().get());
  }
  if (auto armed = device_.arm(irq_index_, first, fds); !armed) return armed;
  for (std::uint32_t i = first; i < end; ++i) {
    vectors_[i].eventfd = std::move(owned[i - first]);
    vectors_[i].server_masked = false;
  }
  return {};
}

void VectorSet::disconnect_masked(std::uint32_t first, std::uint32_t end, const Wanted& wanted) {
  for (std::uint32_t i = first; i < end; ++i) {
    Vector& vector = vectors_[i];
    if (!vector.connected) continue;
    const VectorState state = wanted(i);
    if (state.used && !state.masked) continue;
    router_.disconnect(vector.eventfd.get(), vector.gsi);
    vector.connected = false;
  }
}

Result<void> VectorSet::route_unmasked(std::uint32_t first, std::uint32_t end,
                                       const Wanted& wanted) {
  std::vector<MsiRouter::Route> routes;
  std::vector<std::uint32_t> changed;
  Result<void> outcome;
  for (std::uint32_t i = first; i < end; ++i) {
    Vector& vector = vectors_[i];
    if (!vector.eventfd) continue;
    const VectorState state = wanted(i);
    if (!state.used || state.masked) continue;
    if (vector.routed && vector.message == state.message) continue;
    if (!vector.has_gsi) {
      const auto gsi = router_.allocate_gsi();
      if (!gsi) {
        keep_first(outcome, tl::unexpected(gsi.error()));
        continue;
      }
      vector.gsi = *gsi;
      vector.has_gsi = true;
    }
    vector.message = state.message;
    routes.push_back({vector.gsi, state.message, requester_});
    changed.push_back(i);
  }
  if (routes.empty()) return outcome;
  Result<void> set = router_.set_routes(routes);
  for (const std::uint32_t i : changed) vectors_[i].routed = set.has_value();
  keep_first(outcome, std::move(set));
  return outcome;
}

Result<void> VectorSet::connect_unmasked(std::uint32_t first, std::uint32_t end,
                                         const Wanted& wanted) {
  Result<void> outcome;
  for (std::uint32_t i = first; i < end; ++i) {
    Vector& vector = vectors_[i];
    if (!vector.eventfd || !vector.routed || vector.connected) continue;
    const VectorState state = wanted(i);
    if (!state.used || state.masked) continue;
    Result<void> connected = router_.connect_vector(i, vector.eventfd.get(), vector.gsi);
    vector.connected = connected.has_value();
    keep_first(outcome, std::move(connected));
  }
  return outcome;
}

// After the local step on purpose: the eventfd's count is right whatever the server does with this.
void VectorSet::tell_server_masks(std::uint32_t first, std::uint32_t end, const Wanted& wanted) {
  const auto differs = [&](std::uint32_t i, bool masked) {
    return vectors_[i].eventfd && wanted(i).masked == masked && vectors_[i].server_masked != masked;
  };
  for (const bool masked : {true, false}) {
    for (std::uint32_t at = first; at < end;) {
      if (!differs(at, masked)) {
        ++at;
        continue;
      }
      std::uint32_t run_end = at;
      for (; run_end < end && differs(run_end, masked); ++run_end) {
        vectors_[run_end].server_masked = masked;
      }
      // A refusal changes nothing for the guest: the mask has been applied here.
      (void)(masked ? device_.mask(irq_index_, at, run_end - at)
                    : device_.unmask(irq_index_, at, run_end - at));
      at = run_end;
    }
  }
}

void VectorSet::release(Vector& vector) {
  if (vector.connected) router_.disconnect(vector.eventfd.get(), vector.gsi);
  if (vector.has_gsi) router_.free_gsi(vector.gsi);
  vector = Vector{};
}

Result<void> VectorSet::disable() {
  const bool any = armed_count() != 0;
  drop();
  return any ? device_.disable(irq_index_) : Result<void>{};
}

void VectorSet::drop() {
  for (Vector& vector : vectors_) release(vector);
}

void VectorSet::signal_all() const {
  const std::uint64_t one = 1;
  for (const Vector& vector : vectors_) {
    if (vector.eventfd) (void)!::write(vector.eventfd.get(), &one, sizeof one);
  }
}

bool VectorSet::pending(std::uint32_t vector) const {
  if (vector >= vectors_.size()) return false;
  const Vector& entry = vectors_[vector];
  if (!entry.eventfd || entry.connected) return false;
  pollfd poll_fd{entry.eventfd.get(), POLLIN, 0};
  return ::poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLIN) != 0;
}

std::uint32_t VectorSet::armed_count() const {
  return static_cast<std::uint32_t>(
      std::ranges::count_if(vectors_, [](const Vector& v) { return bool(v.eventfd); }));
}

}  // namespace outboard::devices
