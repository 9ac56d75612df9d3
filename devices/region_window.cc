#include "devices/region_window.h"

#include <algorithm>
#include <string>
#include <utility>

#include "devices/access_marks.h"
#include "devices/page_guard.h"

namespace outboard::devices {

RegionWindow::RegionWindow(Shape shape, std::vector<Overlay> overlays, DeviceLink& link,
                           AccessCounters& counters, GuestLog& log)
    : shape_(std::move(shape)),
      overlays_(std::move(overlays)),
      link_(link),
      counters_(counters),
      log_(log) {}

void RegionWindow::read(std::uint64_t offset, std::span<std::byte> data) {
  const Overlay* overlay = nullptr;
  const Target target = find(offset, data.size(), overlay);
  if (target == Target::overlay) return overlay->device->read(offset - overlay->range.base, data);
  if (target == Target::server && shape_.readable) {
    look_at_pages(offset, data.size());
    const auto got = link_.access(DeviceLink::Repeat::always, [&](vfio_user::Client& client) {
      count(counters_.bar_reads);
      return link_.read(client, shape_.region, offset, data);
    });
    if (got && *got == data.size()) {
      if (counters_.marks != nullptr) counters_.marks->read(shape_.region, offset, data);
      return;
    }
    report("read", offset, data.size(),
           got ? vfio_user::Error{vfio_user::Error::Kind::server, 0, "short reply"} : got.error());
  }
  std::ranges::fill(data, std::byte{0xff});
}

void RegionWindow::write(std::uint64_t offset, std::span<const std::byte> data) {
  const Overlay* overlay = nullptr;
  const Target target = find(offset, data.size(), overlay);
  if (target == Target::overlay) return overlay->device->write(offset - overlay->range.base, data);
  if (target != Target::server || !shape_.writable) return;
  look_at_pages(offset, data.size());
  if (counters_.marks != nullptr && link_.up()) {
    counters_.marks->wrote(shape_.region, offset, data);
  }
  const auto done = link_.access(DeviceLink::Repeat::if_resumed, [&](vfio_user::Client& client) {
    count(counters_.bar_writes);
    if (events_ != nullptr && !events_->covers(offset, data.size())) {
      return write_and_ask(client, offset, data);
    }
    return link_.write(client, shape_.region, offset, data);
  });
  if (!done) report("write", offset, data.size(), done.error());
}

vfio_user::Result<void> RegionWindow::write_and_ask(vfio_user::Client& client, std::uint64_t offset,
                                                    std::span<const std::byte> data) {
  const std::uint64_t before = answers_.load();
  auto [written, ranges] = client.region_write_and_io_fds(shape_.region, offset, data);
  std::lock_guard lock(taking_);
  if (answers_.load() == before || (ranges && events_->holds(*ranges))) {
    take(std::move(ranges));
  } else {
    // Answers to others were taken while this question was on its way, and differ: which one is
    // newer cannot be told.
    take(client.region_io_fds(shape_.region));
  }
  return written;
}

void RegionWindow::refresh_events() {
  vfio_user::Client* const client = link_.client();
  if (events_ == nullptr || client == nullptr) return;
  std::lock_guard lock(taking_);
  take(client->region_io_fds(shape_.region));
}

void RegionWindow::set_events(std::vector<vfio_user::IoFd> ranges) {
  if (events_ == nullptr) return;
  std::lock_guard lock(taking_);
  take(std::move(ranges));
}

void RegionWindow::take(vfio_user::Result<std::vector<vfio_user::IoFd>> ranges) {
  ++answers_;
  if (!ranges) {
    // Nothing is known of the eventfds any more: messages are always right.
    if (link_.up()) log_.line(Severity::warning, ranges.error().message);
    return events_->offer({});
  }
  events_->offer(std::move(*ranges));
}

// An access that lies across the edge of an overlay belongs to nobody.
RegionWindow::Target RegionWindow::find(std::uint64_t offset, std::uint64_t size,
                                        const Overlay*& overlay) const {
  for (const Overlay& candidate : overlays_) {
    if (candidate.range.contains(offset, size)) {
      overlay = &candidate;
      return Target::overlay;
    }
    if (offset < candidate.range.end() && offset + size > candidate.range.base) {
      return Target::nothing;
    }
  }
  return AddressWindow{0, shape_.size}.contains(offset, size) ? Target::server : Target::nothing;
}

// KVM, where it emulates an instruction, takes a page that is gone for a device without memory.
void RegionWindow::look_at_pages(std::uint64_t offset, std::uint64_t size) const {
  for (const AddressWindow& part : shape_.shared) {
    if (part.base < offset + size && offset < part.end()) {
      repair_pages();
      return;
    }
  }
}

void RegionWindow::report(const char* what, std::uint64_t offset, std::uint64_t size,
                          const vfio_user::Error& error) {
  if (error.kind == vfio_user::Error::Kind::closed) return;  // told once, by the link
  count(counters_.access_errors);
  log_.line(Severity::warning, std::string(what) + " of " + std::to_string(size) +
                                   " bytes at offset " + std::to_string(offset) + " of region " +
                                   std::to_string(shape_.region) + " failed: " + error.message);
}

}  // namespace outboard::devices
