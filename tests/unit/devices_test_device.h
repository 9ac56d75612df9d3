// A small PCI device behind a real vfio-user server on a thread of its own, with a log of every
// message that reached it; and a VfioFunction attached to it over the real client.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "devices/aligned_pieces.h"
#include "devices/pci_registers.h"
#include "devices/vfio_function.h"
#include "tests/unit/devices_fakes.h"
#include "vfio_user/client.h"
#include "vfio_user/server.h"
#include "vfio_user/socket_transport.h"

namespace outboard::devices {

inline constexpr std::uint32_t kPmCap = 0x40;
inline constexpr std::uint32_t kMsixCap = 0x50;
inline constexpr std::uint32_t kExpressCap = 0x60;
inline constexpr std::uint32_t kMsiCap = 0xa0;
inline constexpr std::uint32_t kVendorCap = 0xc0;
inline constexpr std::uint64_t kTable = 0x2000;
inline constexpr std::uint64_t kPba = 0x3000;

// BAR 0: 16 KiB, 64 bits: registers, one shared page at 0x1000, MSI-X table and PBA. BAR 2: 32
// ports. BAR 3: 0x3000 bytes, no power of two. ROM: 2 KiB.
class TestDevice final : public vfio_user::DeviceModel {
 public:
  static constexpr std::size_t kSilent = 9;  // bytes of a config read that is not logged

  TestDevice() {
    namespace wire = vfio_user::wire;
    page_file_ = vfio_user::UniqueFd(::memfd_create("bar0", MFD_CLOEXEC));
    REQUIRE(::ftruncate(page_file_.get(), 0x4000) == 0);
    shape_.regions[0] = {wire::kRegionReadable | wire::kRegionWritable | wire::kRegionMappable,
                         0x4000,
                         0,
                         {{0x1000, 0x3000}},
                         page_file_.get()};
    shape_.regions[2] = {wire::kRegionReadable | wire::kRegionWritable, 0x20, 0, {}, -1};
    shape_.regions[3] = {wire::kRegionReadable | wire::kRegionWritable, 0x3000, 0, {}, -1};
    shape_.regions[6] = {wire::kRegionReadable, 0x800, 0, {}, -1};
    shape_.regions[7] = {wire::kRegionReadable | wire::kRegionWritable, 4096, 0, {}, -1};
    shape_.irqs[0] = {wire::kIrqEventfd, 1};
    shape_.irqs[1] = {wire::kIrqEventfd, 4};
    shape_.irqs[2] = {wire::kIrqEventfd, 8};
    shape_.irqs[3] = {wire::kIrqEventfd, 1};
    shape_.irqs[4] = {wire::kIrqEventfd, 1};
    set(pci::kVendorId, 4, 0x00014e58);
    set(pci::kStatus, 2, 0x0010);
    set(pci::kRevisionId, 4, 0x01080201);
    set(pci::kBar0, 4, pci::bar::kType64);
    set(pci::kBar0 + 8, 4, pci::bar::kIo);
    set(pci::kSubsystemVendorId, 4, 0x12345678);
    set(pci::kCapabilities, 1, kPmCap);
    set(pci::kInterruptPin, 1, 1);
    set(kPmCap, 4, 0x00030001 | kMsixCap << 8);
    set(kMsixCap, 4, 0x00070011 | kExpressCap << 8);
    set(kMsixCap + 4, 4, static_cast<std::uint32_t>(kTable));
    set(kMsixCap + 8, 4, static_cast<std::uint32_t>(kPba));
    set(kExpressCap, 4, 0x00020010 | kMsiCap << 8);
    set(kExpressCap + 4, 4, 0x10008000);
    set(kExpressCap + 8, 2, 0x2810);
    set(kMsiCap, 4, 0x01840005 | kVendorCap << 8);  // 4 vectors, 64 bits, masks
    set(kVendorCap, 4, 0x5a100009);
  }

  const vfio_user::DeviceShape& shape() const override { return shape_; }

  int region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) override {
    if (region == 7 && data.size() > 8) {
      if (data.size() != kSilent) note("bulk");
      std::memcpy(data.data(), config_.data() + offset, data.size());
      return 0;
    }
    note("r" + std::to_string(region) + " " + hex(offset) + "/" + std::to_string(data.size()));
    if (fail_reads) return EIO;
    if (region == 7) {
      std::memcpy(data.data(), config_.data() + offset, data.size());
    } else {
      store_le(data, registers_[region * 0x100 + offset % 0x100]);
    }
    return 0;
  }

  int region_write(std::uint32_t region, std::uint64_t offset,
                   std::span<const std::byte> data) override {
    note("w" + std::to_string(region) + " " + hex(offset) + "/" + std::to_string(data.size()) +
         "=" + hex(load_le(data)));
    if (region != 7) {
      registers_[region * 0x100 + offset % 0x100] = load_le(data);
      return 0;
    }
    if (refuse_config) return EINVAL;
    auto value = static_cast<std::uint32_t>(load_le(data));
    if (offset == kExpressCap + 8) value &= 0x7fff;
    set(static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(data.size()), value);
    return 0;
  }

  void reset() override { note("reset"); }
  void irqs_armed(std::uint32_t index) override { note("irqs " + std::to_string(index)); }
  void irq_unmasked(std::uint32_t index, std::uint32_t, std::uint32_t) override {
    note("unmask " + std::to_string(index));
  }

  std::vector<vfio_user::ServerIoFd> io_fds(std::uint32_t region) override {
    note("ask " + std::to_string(region));
    if (asked) asked();
    std::lock_guard lock(mutex_);
    return offer_[region];
  }
  void offer(std::uint32_t region, std::vector<vfio_user::ServerIoFd> ranges) {
    std::lock_guard lock(mutex_);
    offer_[region] = std::move(ranges);
  }

  void set(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
    store_le(std::span(config_).subspan(reg, size), value);
  }

  // The messages since the last call.
  std::vector<std::string> take_log() {
    std::lock_guard lock(mutex_);
    return std::exchange(log_, {});
  }

  vfio_user::DeviceShape shape_;  // changed before the server starts
  std::array<std::byte, 4096> config_{};
  std::atomic<bool> fail_reads{false};
  std::atomic<bool> refuse_config{false};
  std::function<void()> asked;  // on the server's thread, before each answer to io_fds(); set idle
  int page_file() const { return page_file_.get(); }

 private:
  static std::string hex(std::uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "%llx", static_cast<unsigned long long>(value));
    return text;
  }
  void note(std::string line) {
    std::lock_guard lock(mutex_);
    log_.push_back(std::move(line));
  }

  vfio_user::UniqueFd page_file_;
  std::array<std::uint64_t, 0x900> registers_{};
  std::mutex mutex_;
  std::vector<std::string> log_;  // under mutex_, as the next
  std::array<std::vector<vfio_user::ServerIoFd>, 9> offer_;
};

// The server's thread. stop() is the death of the server.
class ServerThread final {
 public:
  ServerThread(vfio_user::UniqueFd socket, TestDevice& device) : socket_(socket.get()) {
    stop_ = vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC));
    auto server = vfio_user::Server::attach(std::move(socket), device);
    REQUIRE(server);
    server_ = std::move(*server);
    thread_ = std::thread([this] { run(); });
  }
  ~ServerThread() { stop(); }

  void stop() {
    if (!thread_.joinable()) return;
    signal(stop_.get());
    thread_.join();
    server_.reset();
  }

  // On the server's thread: whether another message arrives in time.
  bool readable(int milliseconds) const {
    pollfd fd{socket_, POLLIN, 0};
    return ::poll(&fd, 1, milliseconds) == 1 && fd.revents == POLLIN;
  }

  // The device raises a vector, on the server's thread.
  int trigger(std::uint32_t index, std::uint32_t vector) {
    std::unique_lock lock(mutex_);
    wanted_ = {index, vector};
    has_wanted_ = true;
    signal(stop_.get());
    done_.wait(lock, [this] { return !has_wanted_; });
    return outcome_;
  }

 private:
  static void signal(int fd) {
    const std::uint64_t one = 1;
    (void)!::write(fd, &one, sizeof one);
  }

  void run() {
    for (;;) {
      pollfd fds[2] = {{server_->poll_fd(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      ::poll(fds, 2, -1);
      if (fds[1].revents != 0) {
        std::uint64_t times = 0;
        (void)!::read(stop_.get(), &times, sizeof times);
        std::lock_guard lock(mutex_);
        if (!has_wanted_) return;
        outcome_ = server_->trigger(wanted_.first, wanted_.second);
        has_wanted_ = false;
        done_.notify_all();
      }
      if (fds[0].revents != 0) (void)server_->process();
    }
  }

  const int socket_;  // the server's
  vfio_user::UniqueFd stop_;
  std::unique_ptr<vfio_user::Server> server_;  // the thread's, until it has been joined
  std::mutex mutex_;
  std::condition_variable done_;
  std::pair<std::uint32_t, std::uint32_t> wanted_;  // under mutex_, and the next two
  bool has_wanted_ = false;
  int outcome_ = 0;
  std::thread thread_;
};

struct LogLines {
  mutable std::mutex mutex;
  std::vector<std::string> lines;
  void operator()(std::string line) {
    std::lock_guard lock(mutex);
    lines.push_back(std::move(line));
  }
  std::size_t count(const std::string& part) const {
    std::lock_guard lock(mutex);
    return static_cast<std::size_t>(std::ranges::count_if(
        lines, [&](const std::string& line) { return line.find(part) != std::string::npos; }));
  }
};

// A machine with one function attached. Change `device` before attach().
class Attached {
 public:
  Attached() {
    options.name = "disk0";
    options.slot = 1;
    options.intx_gsi = 16;
    options.log = [this](Severity, std::string line) { log(std::move(line)); };
  }
  ~Attached() {
    if (client) client->close();
    function.reset();
  }

  Result<void> try_attach() {
    auto pair = vfio_user::SocketTransport::make_pair();
    REQUIRE(pair);
    server.emplace(std::move(pair->second), device);
    auto adopted = vfio_user::Client::adopt(std::move(pair->first), {});
    REQUIRE(adopted);
    client = std::move(*adopted);
    auto description = client->attach({});
    REQUIRE(description);
    device.take_log();
    const Machine machine{bus, pages, msi, intx, io_events, loop};
    auto made = VfioFunction::create(client, std::move(*description), machine, options);
    if (!made) return tl::unexpected(made.error());
    function = std::move(*made);
    return {};
  }

  void attach() {
    const auto attached = try_attach();
    REQUIRE_MESSAGE(attached, (attached ? "" : attached.error().message));
    BarAllocator allocator({0xc0000000, 0x20000000}, {0x1000000000, 0x1000000000},
                           {0xc000, 0x4000});
    REQUIRE(function->place_bars(allocator));
  }

  std::uint32_t cfg(std::uint32_t reg, std::uint32_t size = 4) {
    return function->config_read(reg, size);
  }
  void cfg(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
    function->config_write(reg, size, value);
  }
  // The messages since the last call. Servers reply first and tell the device then; a read that
  // leaves no trace in the log comes after all of it.
  std::vector<std::string> messages() {
    std::array<std::byte, TestDevice::kSilent> bytes{};
    if (client->alive()) REQUIRE(client->region_read(vfio_user::kRegionConfig, 0, bytes));
    return device.take_log();
  }
  std::uint64_t bar(std::uint32_t region) const {
    for (const BarInfo& info : function->bars()) {
      if (info.region == region) return info.address;
    }
    return 0;
  }

  TestDevice device;
  LogLines log;
  FakeBus bus;
  FakeMapper pages;
  FakeMsiRouter msi;
  FakeIntxRouter intx;
  FakeIoEvents io_events;
  FakeEventLoop loop;
  VfioFunctionOptions options;
  std::optional<ServerThread> server;
  std::shared_ptr<vfio_user::Client> client;
  std::unique_ptr<VfioFunction> function;
};

}  // namespace outboard::devices
