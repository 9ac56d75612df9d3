#include "vfio_user/irq_table.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace outboard::vfio_user {

namespace {

tl::unexpected<Error> refuse(const std::string& why) {
  return fail(Error::Kind::invalid, EINVAL, "DEVICE_SET_IRQS: " + why);
}

}  // namespace

IrqTable::IrqTable(const std::array<ServerIrq, wire::kPciIrqs>& irqs) {
  for (std::size_t i = 0; i < irqs.size(); ++i) {
    indexes_[i].flags = irqs[i].flags;
    indexes_[i].vectors.resize(irqs[i].count);
  }
}

Result<void> IrqTable::check_range(const wire::SetIrqs& request) const {
  if (request.index >= indexes_.size()) {
    return refuse("there is no index " + std::to_string(request.index));
  }
  const std::size_t vectors = indexes_[request.index].vectors.size();
  if (request.start + std::uint64_t{request.count} > vectors || vectors == 0) {
    return refuse("vectors " + std::to_string(request.start) + " and " +
                  std::to_string(request.count) + " on, index " + std::to_string(request.index) +
                  " has " + std::to_string(vectors));
  }
  return {};
}

Result<void> IrqTable::check_eventfd(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || (status.st_mode & S_IFMT) != 0) {
    return refuse("a file descriptor is no eventfd");
  }
  std::array<char, 64> target{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  // With no /proc at hand, an anonymous inode has to be believed.
  if (length > 0 &&
      std::string_view(target.data(), static_cast<std::size_t>(length)) != "anon_inode:[eventfd]") {
    return refuse("a file descriptor is no eventfd");
  }
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return refuse("an eventfd cannot be made non-blocking");
  }
  return {};
}

Result<IrqTable::Change> IrqTable::set(const wire::SetIrqs& request,
                                       std::span<const std::byte> bools, std::vector<UniqueFd> fds,
                                       std::uint64_t& signalled) {
  if (auto checked = check_range(request); !checked) return tl::make_unexpected(checked.error());
  auto& vectors = indexes_[request.index].vectors;
  const bool trigger_action = (request.flags & wire::kSetIrqsActionTrigger) != 0;
  const bool with_eventfds = (request.flags & wire::kSetIrqsDataEventfd) != 0;

  if (!with_eventfds && !fds.empty()) return refuse("file descriptors without eventfd data");
  if (with_eventfds) {
    if (!trigger_action) return refuse("eventfds for masking are not taken here");
    if (request.count == 0) return refuse("eventfd data for no vector");
    if (!fds.empty() && fds.size() != request.count) {
      return refuse(std::to_string(fds.size()) + " file descriptors for " +
                    std::to_string(request.count) + " vectors");
    }
    if ((indexes_[request.index].flags & wire::kIrqEventfd) == 0) {
      return refuse("the index takes no eventfds");
    }
    for (const auto& fd : fds) {
      if (auto checked = check_eventfd(fd.get()); !checked) {
        return tl::make_unexpected(checked.error());
      }
    }
    for (std::uint32_t i = 0; i < request.count; ++i) {
      vectors[request.start + i] = {};
      if (!fds.empty()) vectors[request.start + i].eventfd = std::move(fds[i]);
    }
    return Change{true, false};
  }

  if (request.count == 0) {
    const bool disable = (request.flags & wire::kSetIrqsDataNone) != 0 && request.start == 0;
    if (!trigger_action || !disable) return refuse("no vectors are named");
    for (auto& vector : vectors) vector = {};
    return Change{true, false};
  }

  Change change;
  for (std::uint32_t i = 0; i < request.count; ++i) {
    if (!bools.empty() && bools[i] == std::byte{0}) continue;
    const std::uint32_t vector = request.start + i;
    if (trigger_action) {
      trigger(request.index, vector, signalled);
    } else if ((request.flags & wire::kSetIrqsActionMask) != 0) {
      mask(request.index, vector);
    } else {
      unmask(request.index, vector, signalled);
      change.unmasked = true;
    }
  }
  return change;
}

void IrqTable::mask(std::uint32_t index, std::uint32_t vector) {
  if (Vector* found = find(index, vector)) found->masked = true;
}

void IrqTable::unmask(std::uint32_t index, std::uint32_t vector, std::uint64_t& signalled) {
  Vector* found = find(index, vector);
  if (found == nullptr) return;
  found->masked = false;
  const bool raise =
      std::exchange(found->pending, false) && (indexes_[index].flags & wire::kIrqAutomasked) == 0;
  if (raise && found->eventfd) signal(*found, signalled);
}

int IrqTable::trigger(std::uint32_t index, std::uint32_t vector, std::uint64_t& signalled) {
  Vector* found = find(index, vector);
  if (found == nullptr) return EINVAL;
  if (!found->eventfd) return ENOENT;
  if (found->masked) {
    found->pending = true;
    return 0;
  }
  found->masked = (indexes_[index].flags & wire::kIrqAutomasked) != 0;
  signal(*found, signalled);
  return 0;
}

bool IrqTable::armed(std::uint32_t index, std::uint32_t vector) const {
  const Vector* found = find(index, vector);
  return found != nullptr && static_cast<bool>(found->eventfd);
}

void IrqTable::reset() {
  for (auto& index : indexes_) {
    const bool automasked = (index.flags & wire::kIrqAutomasked) != 0;
    for (auto& vector : index.vectors) {
      vector.pending = false;
      if (automasked) vector.masked = false;
    }
  }
}

IrqTable::Vector* IrqTable::find(std::uint32_t index, std::uint32_t vector) {
  if (index >= indexes_.size() || vector >= indexes_[index].vectors.size()) return nullptr;
  return &indexes_[index].vectors[vector];
}

const IrqTable::Vector* IrqTable::find(std::uint32_t index, std::uint32_t vector) const {
  if (index >= indexes_.size() || vector >= indexes_[index].vectors.size()) return nullptr;
  return &indexes_[index].vectors[vector];
}

void IrqTable::signal(Vector& vector, std::uint64_t& signalled) {
  const std::uint64_t one = 1;
  // EAGAIN: the counter is at its maximum, so the client has a signal to see. Other errors mean
  // that the eventfd is of no use, which is the client's affair.
  if (::write(vector.eventfd.get(), &one, sizeof(one)) == sizeof(one)) ++signalled;
}

}  // namespace outboard::vfio_user
