#include "devices/region_events.h"

#include <algorithm>
#include <string>
#include <utility>

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace outboard::devices {
namespace {

// The same eventfd behind two descriptors. Where the kernel does not tell (no kcmp) it counts as
// another one, which costs a replacement and no more.
bool same_file(int a, int b) {
  const auto self = static_cast<long>(::getpid());
  return ::syscall(SYS_kcmp, self, self, static_cast<long>(KCMP_FILE), static_cast<long>(a),
                   static_cast<long>(b)) == 0;
}

bool same(const vfio_user::IoFd& a, const vfio_user::IoFd& b) {
  return a.offset == b.offset && a.size == b.size && a.pio == b.pio && a.datamatch == b.datamatch &&
         same_file(a.fd.get(), b.fd.get());
}

std::uint64_t span_of(const vfio_user::IoFd& io) {
  return std::max<std::uint64_t>(io.size, 1);
}

}  // namespace

RegionEvents::RegionEvents(const BarInfo& bar, std::vector<AddressWindow> kept_out,
                           IoEvents& events, GuestLog& log)
    : bar_(bar),
      kept_out_(std::move(kept_out)),
      space_(bar.kind == BarInfo::Kind::io ? Space::pio : Space::mmio),
      events_(events),
      log_(log) {}

RegionEvents::~RegionEvents() {
  move(std::nullopt);
}

void RegionEvents::offer(std::vector<vfio_user::IoFd> ranges) {
  std::lock_guard lock(mutex_);
  std::vector<std::string> faults;
  std::vector<Range> next;
  for (vfio_user::IoFd& io : ranges) {
    if (std::string fault = fault_of(io); !fault.empty()) {
      if (std::ranges::find(told_, fault) == told_.end()) log_.line(Severity::warning, fault);
      faults.push_back(std::move(fault));
    } else if (const auto old = find(io); old != ranges_.end()) {
      Range& kept = ranges_[static_cast<std::size_t>(old - ranges_.begin())];
      next.push_back({std::move(kept.io), std::exchange(kept.attached, false), kept.refused});
    } else {
      next.push_back({std::move(io)});
    }
  }
  // What went first: a new range may lie where an old one was.
  for (Range& gone : ranges_) detach(gone);
  ranges_ = std::move(next);
  told_ = std::move(faults);
  for (Range& range : ranges_) attach(range);
}

bool RegionEvents::holds(const std::vector<vfio_user::IoFd>& ranges) const {
  std::lock_guard lock(mutex_);
  std::size_t held = 0;
  for (const vfio_user::IoFd& io : ranges) {
    if (!fault_of(io).empty()) continue;
    if (find(io) == ranges_.end()) return false;
    ++held;
  }
  return held == ranges_.size();
}

void RegionEvents::move(std::optional<std::uint64_t> base) {
  std::lock_guard lock(mutex_);
  if (base == base_) return;
  for (Range& range : ranges_) detach(range);
  base_ = base;
  for (Range& range : ranges_) {
    range.refused = false;
    attach(range);
  }
}

bool RegionEvents::covers(std::uint64_t offset, std::uint64_t size) const {
  std::lock_guard lock(mutex_);
  return std::ranges::any_of(ranges_, [&](const Range& range) {
    if (range.io.size == 0) return offset == range.io.offset;
    return AddressWindow{range.io.offset, range.io.size}.contains(offset, size);
  });
}

std::string RegionEvents::fault_of(const vfio_user::IoFd& io) const {
  const auto trapped = [&](const char* why) {
    return "the ioeventfd at offset " + std::to_string(io.offset) + " of region " +
           std::to_string(bar_.region) + " is not used: " + why;
  };
  if (io.type != vfio_user::IoFdType::ioeventfd) return trapped("it is of another kind");
  if (io.pio != (space_ == Space::pio)) {
    return trapped(io.pio ? "it is for I/O ports and the BAR is memory"
                          : "it is for memory and the BAR is I/O ports");
  }
  const AddressWindow range{io.offset, span_of(io)};
  if (!AddressWindow{0, bar_.size}.contains(range.base, range.size)) {
    return trapped("it lies outside the BAR");
  }
  for (const AddressWindow& kept : kept_out_) {
    if (range.base < kept.end() && kept.base < range.end()) {
      return trapped("it lies on the MSI-X table or its pending bits");
    }
  }
  return {};
}

std::vector<RegionEvents::Range>::const_iterator RegionEvents::find(
    const vfio_user::IoFd& io) const {
  return std::ranges::find_if(
      ranges_, [&](const Range& range) { return range.io.fd && same(range.io, io); });
}

void RegionEvents::attach(Range& range) {
  if (!base_ || range.attached || range.refused) return;
  const auto done =
      events_.attach(space_, *base_ + range.io.offset, static_cast<std::uint32_t>(range.io.size),
                     range.io.datamatch, range.io.fd.get());
  range.attached = done.has_value();
  range.refused = !done;
  if (done) return;
  log_.line(Severity::warning, "stores at offset " + std::to_string(range.io.offset) +
                                   " of region " + std::to_string(bar_.region) +
                                   " stay messages: " + done.error().message);
}

void RegionEvents::detach(Range& range) {
  if (!range.attached) return;
  events_.detach(space_, *base_ + range.io.offset, static_cast<std::uint32_t>(range.io.size),
                 range.io.datamatch, range.io.fd.get());
  range.attached = false;
}

}  // namespace outboard::devices
