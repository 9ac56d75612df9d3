// The machine's services as tests see them: every call recorded, nothing shared with KVM.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <poll.h>
#include <unistd.h>

#include "devices/aligned_pieces.h"
#include "devices/bus.h"
#include "devices/device_irqs.h"
#include "devices/event_loop.h"
#include "devices/interrupts.h"
#include "devices/ioevents.h"
#include "devices/mapper.h"

namespace doctest {

template <>
struct StringMaker<std::vector<std::string>> {
  static String convert(const std::vector<std::string>& lines) {
    std::string out;
    for (const std::string& line : lines) out += "\"" + line + "\" ";
    return out.c_str();
  }
};

}  // namespace doctest

namespace outboard::devices {

class FakeBus final : public Bus {
 public:
  struct Range {
    Space space;
    std::uint64_t base;
    std::uint64_t size;
    BusDevice* device;
  };

  MapId map(Space space, std::uint64_t base, std::uint64_t size, BusDevice& device,
            Priority) override {
    std::lock_guard lock(mutex_);
    ranges_.emplace(++next_, Range{space, base, size, &device});
    return MapId{next_};
  }
  void unmap(MapId id) override {
    std::lock_guard lock(mutex_);
    ranges_.erase(static_cast<std::uint64_t>(id));
  }

  std::optional<Range> find(Space space, std::uint64_t address) const {
    std::lock_guard lock(mutex_);
    for (const auto& [id, range] : ranges_) {
      if (range.space == space && address >= range.base && address - range.base < range.size) {
        return range;
      }
    }
    return std::nullopt;
  }
  std::size_t count() const {
    std::lock_guard lock(mutex_);
    return ranges_.size();
  }

  std::uint64_t read(std::uint64_t address, std::size_t size, Space space = Space::mmio) const {
    std::byte bytes[8];
    const auto range = find(space, address);
    if (!range) return ~0ULL >> (64 - 8 * size);
    range->device->read(address - range->base, {bytes, size});
    return load_le({bytes, size});
  }
  void write(std::uint64_t address, std::size_t size, std::uint64_t value,
             Space space = Space::mmio) const {
    std::byte bytes[8];
    store_le({bytes, size}, value);
    if (const auto range = find(space, address)) {
      range->device->write(address - range->base, std::span<const std::byte>{bytes, size});
    }
  }

 private:
  mutable std::mutex mutex_;
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, Range> ranges_;
};

class FakeMapper final : public PageMapper {
 public:
  struct Slot {
    std::uint64_t at;
    std::span<std::byte> host;
    bool writable;
  };

  Result<SlotId> map(GuestAddress at, std::span<std::byte> host, bool writable) override {
    std::lock_guard lock(mutex_);
    if (refuse) return failure("overlaps RAM");
    slots_.emplace(++next_, Slot{raw(at), host, writable});
    return SlotId{next_};
  }
  void unmap(SlotId id) override {
    std::lock_guard lock(mutex_);
    slots_.erase(static_cast<std::uint32_t>(id));
  }

  std::vector<Slot> slots() const {
    std::lock_guard lock(mutex_);
    std::vector<Slot> out;
    for (const auto& [id, slot] : slots_) out.push_back(slot);
    return out;
  }

  bool refuse = false;

 private:
  mutable std::mutex mutex_;
  std::uint32_t next_ = 0;
  std::map<std::uint32_t, Slot> slots_;
};

// Stands for the irqchip: interrupts arrive when a test calls deliver().
class FakeMsiRouter final : public MsiRouter {
 public:
  Result<std::uint32_t> allocate_gsi() override {
    std::lock_guard lock(mutex_);
    if (free_gsis == 0) return failure("no GSI left");
    --free_gsis;
    gsis_.insert(next_);
    return next_++;
  }
  void free_gsi(std::uint32_t gsi) override {
    std::lock_guard lock(mutex_);
    ++free_gsis;
    gsis_.erase(gsi);
    routes_.erase(gsi);
  }
  Result<void> set_routes(std::span<const Route> routes) override {
    std::lock_guard lock(mutex_);
    ++routing_calls;
    for (const Route& route : routes) {
      routes_[route.gsi] = route.message;
      requesters.insert(route.requester);
    }
    return {};
  }
  Result<void> connect(int eventfd, std::uint32_t gsi) override {
    std::lock_guard lock(mutex_);
    connected_[eventfd] = gsi;
    return {};
  }
  void disconnect(int eventfd, std::uint32_t) override {
    std::lock_guard lock(mutex_);
    connected_.erase(eventfd);
  }

  // The messages of all connected eventfds that have been signalled since, one each.
  std::vector<MsiMessage> deliver() {
    std::lock_guard lock(mutex_);
    std::vector<MsiMessage> out;
    for (const auto& [fd, gsi] : connected_) {
      pollfd ready{fd, POLLIN, 0};
      if (::poll(&ready, 1, 0) != 1) continue;
      std::uint64_t times = 0;
      (void)!::read(fd, &times, sizeof times);
      out.push_back(routes_.at(gsi));
    }
    return out;
  }
  std::size_t connected() const {
    std::lock_guard lock(mutex_);
    return connected_.size();
  }
  std::size_t gsis() const {
    std::lock_guard lock(mutex_);
    return gsis_.size();
  }

  std::uint32_t free_gsis = 4096;
  std::uint32_t routing_calls = 0;
  std::set<std::uint16_t> requesters;  // of all routes so far

 private:
  mutable std::mutex mutex_;
  std::uint32_t next_ = 24;
  std::set<std::uint32_t> gsis_;
  std::map<std::uint32_t, MsiMessage> routes_;
  std::map<int, std::uint32_t> connected_;
};

class FakeIntxRouter final : public IntxRouter {
 public:
  Result<void> connect(std::uint32_t, int trigger, int resample) override {
    std::lock_guard lock(mutex_);
    trigger_ = trigger;
    resample_ = resample;
    return {};
  }
  void disconnect(std::uint32_t, int) override {
    std::lock_guard lock(mutex_);
    trigger_ = resample_ = -1;
  }
  bool connected() const {
    std::lock_guard lock(mutex_);
    return trigger_ >= 0;
  }
  // Whether the line was asserted since the last EOI.
  bool take_trigger(int timeout_ms = 0) {
    int fd = -1;
    {
      std::lock_guard lock(mutex_);
      fd = trigger_;
    }
    pollfd ready{fd, POLLIN, 0};
    if (::poll(&ready, 1, timeout_ms) != 1) return false;
    std::uint64_t times = 0;
    return ::read(fd, &times, sizeof times) == sizeof times;
  }
  void eoi() {
    std::lock_guard lock(mutex_);
    const std::uint64_t one = 1;
    if (resample_ >= 0) (void)!::write(resample_, &one, sizeof one);
  }

 private:
  mutable std::mutex mutex_;
  int trigger_ = -1;
  int resample_ = -1;
};

// Stands for KVM_IOEVENTFD: a store that is taken signals the eventfd.
class FakeIoEvents final : public IoEvents {
 public:
  struct Entry {
    Space space;
    std::uint64_t base;
    std::uint32_t size;
    std::optional<std::uint64_t> datamatch;
    int fd;
    bool operator==(const Entry&) const = default;
  };
  Result<void> attach(Space space, std::uint64_t base, std::uint32_t size,
                      std::optional<std::uint64_t> datamatch, int fd) override {
    std::lock_guard lock(mutex_);
    ++attaches;
    if (refuse) return failure("EEXIST");
    entries_.push_back({space, base, size, datamatch, fd});
    return {};
  }
  void detach(Space space, std::uint64_t base, std::uint32_t size,
              std::optional<std::uint64_t> datamatch, int fd) override {
    std::lock_guard lock(mutex_);
    [[maybe_unused]] const std::size_t taken =
        std::erase(entries_, Entry{space, base, size, datamatch, fd});
    CHECK(taken == 1);
  }

  // Whether the kernel takes this store.
  bool store(std::uint64_t address, std::size_t size, std::uint64_t value,
             Space space = Space::mmio) {
    std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_) {
      if (entry.space != space || entry.base != address) continue;
      if (entry.size != 0 && entry.size != size) continue;
      if (entry.datamatch && *entry.datamatch != value) continue;
      const std::uint64_t one = 1;
      return ::write(entry.fd, &one, sizeof one) == sizeof one;
    }
    return false;
  }
  // "m c0000010/4", "p c004/1=5", in order.
  std::vector<std::string> list() const {
    std::lock_guard lock(mutex_);
    std::vector<std::string> out;
    for (const Entry& entry : entries_) {
      char text[80];
      std::snprintf(text, sizeof text, "%c %llx/%u", entry.space == Space::pio ? 'p' : 'm',
                    static_cast<unsigned long long>(entry.base), entry.size);
      out.emplace_back(text);
      if (entry.datamatch) out.back() += "=" + std::to_string(*entry.datamatch);
    }
    std::ranges::sort(out);
    return out;
  }

  bool refuse = false;
  int attaches = 0;

 private:
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

// Runs callbacks when the test says so, on the test's thread.
class FakeEventLoop final : public EventLoop {
 public:
  WatchId watch(int fd, std::uint32_t, std::function<void(std::uint32_t)> callback) override {
    std::lock_guard lock(mutex_);
    watches_[++next_] = {fd, std::move(callback)};
    return WatchId{next_};
  }
  void unwatch(WatchId id) override {
    std::lock_guard lock(mutex_);
    watches_.erase(static_cast<std::uint64_t>(id));
  }
  void post(std::function<void()> function) override {
    {
      std::lock_guard lock(mutex_);
      posted_.push_back(std::move(function));
    }
  }

  // What is ready now, at most waiting timeout_ms for a first watched fd.
  void run(int timeout_ms = 0) {
    std::vector<pollfd> fds;
    std::vector<std::function<void(std::uint32_t)>> callbacks;
    std::vector<std::function<void()>> posted;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [id, watch] : watches_) {
        fds.push_back({watch.first, POLLIN, 0});
        callbacks.push_back(watch.second);
      }
      posted.swap(posted_);
    }
    for (const auto& function : posted) function();
    if (::poll(fds.data(), fds.size(), timeout_ms) <= 0) return;
    for (std::size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].revents != 0) callbacks[i](static_cast<std::uint32_t>(fds[i].revents));
    }
  }
  std::size_t watches() const {
    std::lock_guard lock(mutex_);
    return watches_.size();
  }
  bool has_posts() const {
    std::lock_guard lock(mutex_);
    return !posted_.empty();
  }

 private:
  mutable std::mutex mutex_;
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, std::pair<int, std::function<void(std::uint32_t)>>> watches_;
  std::vector<std::function<void()>> posted_;
};

class FakeLine final : public InterruptLine {
 public:
  void set(bool level) override {
    if (level && !level_) ++edges;
    level_ = level;
  }
  bool level() const { return level_; }
  int edges = 0;

 private:
  bool level_ = false;
};

// The device's side of interrupt set-up: keeps the eventfds, as a server would.
class FakeIrqs final : public DeviceIrqs {
 public:
  Result<void> arm(std::uint32_t index, std::uint32_t start,
                   std::span<const int> eventfds) override {
    log.push_back("arm " + std::to_string(index) + " " + std::to_string(start) + "+" +
                  std::to_string(eventfds.size()));
    if (refuse_arm) return failure("EINVAL");
    for (std::size_t i = 0; i < eventfds.size(); ++i) {
      fds[static_cast<std::uint32_t>(start + i)] = ::dup(eventfds[i]);
    }
    return {};
  }
  Result<void> disable(std::uint32_t index) override {
    log.push_back("disable " + std::to_string(index));
    close_all();
    return {};
  }
  Result<void> mask(std::uint32_t index, std::uint32_t start, std::uint32_t count) override {
    log.push_back("mask " + std::to_string(index) + " " + std::to_string(start) + "+" +
                  std::to_string(count));
    return {};
  }
  Result<void> unmask(std::uint32_t index, std::uint32_t start, std::uint32_t count) override {
    log.push_back("unmask " + std::to_string(index) + " " + std::to_string(start) + "+" +
                  std::to_string(count));
    return {};
  }
  ~FakeIrqs() override { close_all(); }

  bool signal(std::uint32_t vector) {
    const auto at = fds.find(vector);
    if (at == fds.end()) return false;
    const std::uint64_t one = 1;
    return ::write(at->second, &one, sizeof one) == sizeof one;
  }

  std::vector<std::string> log;
  std::map<std::uint32_t, int> fds;
  bool refuse_arm = false;

 private:
  void close_all() {
    for (const auto& [vector, fd] : fds) ::close(fd);
    fds.clear();
  }
};

}  // namespace outboard::devices
