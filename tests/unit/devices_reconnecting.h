// A function whose servers die and come back, each a scripted one that says what it is told.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "devices/pci_registers.h"
#include "devices/vfio_function.h"
#include "tests/protocol/scripted_server.h"
#include "tests/unit/devices_fakes.h"

namespace outboard::devices {

using namespace std::chrono_literals;
using protocol_test::Bytes;
using protocol_test::Logged;
using protocol_test::Script;
using protocol_test::ScriptedServer;
using vfio_user::wire::Command;

inline constexpr std::uint32_t kScriptMsix = 0x40;    // capability
inline constexpr std::uint32_t kScriptVendor = 0x50;  // capability: registers at the server
inline constexpr std::uint64_t kScriptTable = 0x800;  // in BAR 0, 4 KiB; the PBA is at 0xc00
inline constexpr const char* kStateId = "0123456789abcdef0123456789abcdef";

inline std::string resume_key(bool resumed, const std::string& id = kStateId) {
  return R"("max_msg_fds":8,"resume":{"id":")" + id + R"(","resumed":)" +
         (resumed ? "true" : "false") + "}";
}

// 64 KiB of it are BAR 2, whose first page is shared where `page` is a file.
class Reconnecting {
 public:
  explicit Reconnecting(std::chrono::milliseconds hold = 10s) {
    options.name = "disk0";
    options.slot = 1;
    options.hold = hold;
    options.on_down = [this] { ++downs; };
    options.log = [this](Severity, const std::string& line) {
      const std::lock_guard lock(log_mutex_);
      lines_.push_back(line);
    };
    config.resize(256);
    poke(pci::kVendorId, 4, 0x00101b36);
    poke(pci::kStatus, 2, 0x0010);
    poke(pci::kRevisionId, 4, 0xff000001);
    poke(pci::kCapabilities, 1, kScriptMsix);
    poke(kScriptMsix, 4, 0x00070011 | kScriptVendor << 8);
    poke(kScriptMsix + 4, 4, kScriptTable);
    poke(kScriptMsix + 8, 4, 0xc00);
    poke(kScriptVendor, 4, 0x00100009);
  }
  ~Reconnecting() {
    if (function) function->close();
    function.reset();
  }

  void poke(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
    store_le(std::span(config).subspan(reg, size), value);
  }

  // A server of `script` and `config`, and a client that has attached to it.
  struct Reached {
    std::unique_ptr<vfio_user::Client> client;
    vfio_user::DeviceDescription description;
  };
  vfio_user::Result<Reached> reach() {
    servers.push_back(std::make_unique<ScriptedServer>(script));
    servers.back()->memory()[vfio_user::kRegionConfig] = config;
    auto client = servers.back()->connect(protocol_test::quick_options(timeout));
    if (!client) return tl::unexpected(client.error());
    auto description = (*client)->attach({});
    if (!description) return tl::unexpected(description.error());
    return Reached{std::move(*client), std::move(*description)};
  }

  void attach() {
    auto reached = reach();
    REQUIRE(reached);
    const Machine machine{bus, pages, msi, intx, io_events, loop};
    auto made = VfioFunction::create(std::move(reached->client), std::move(reached->description),
                                     machine, options);
    REQUIRE(made);
    function = std::move(*made);
    BarAllocator allocator({0xc0000000, 0x20000000}, {0x1000000000, 0x1000000000},
                           {0xc000, 0x4000});
    REQUIRE(function->place_bars(allocator));
    base = function->bars().at(0).address;
  }

  // The server in use dies, and the function has noticed.
  void kill() {
    const int before = downs;
    server().stop();
    while (downs == before) loop.run(10);
  }

  // What the Reconnector does, once.
  Reconnected bring_back() {
    function->disconnect();
    function->trying();
    auto reached = reach();
    if (!reached) {
      function->not_yet(reached.error().message);
      return {Reconnected::Kind::lost, reached.error().message};
    }
    auto outcome =
        function->reconnect(std::move(reached->client), std::move(reached->description), {});
    if (outcome.kind == Reconnected::Kind::lost) function->not_yet(outcome.why);
    return outcome;
  }

  ScriptedServer& server() { return *servers.back(); }
  // So many accesses wait for a server.
  void wait_for_waiters(std::uint64_t count) const {
    while (function->link().waiting < count) std::this_thread::yield();
  }
  // "w0 10=2a", "reset", "irqs 2" of what changes a device, in order, of the server in use.
  std::vector<std::string> changes() {
    std::vector<std::string> out;
    for (const Logged& message : server().log()) {
      if (message.command() == Command::device_reset) out.emplace_back("reset");
      if (message.command() == Command::device_set_irqs) {
        const auto set = message.as<vfio_user::wire::SetIrqs>();
        out.push_back("irqs " + std::to_string(set.index) + " " + std::to_string(set.start) + "+" +
                      std::to_string(set.count));
      }
      if (message.command() == Command::region_write) {
        const auto access = message.as<vfio_user::wire::RegionAccess>();
        char text[64];
        std::snprintf(text, sizeof text, "w%u %llx=%llx", access.region,
                      static_cast<unsigned long long>(access.offset),
                      static_cast<unsigned long long>(
                          load_le(std::span(message.payload).subspan(sizeof access))));
        out.emplace_back(text);
      }
    }
    return out;
  }
  std::size_t lines(const std::string& part) {
    const std::lock_guard lock(log_mutex_);
    return static_cast<std::size_t>(std::ranges::count_if(
        lines_, [&](const std::string& line) { return line.find(part) != std::string::npos; }));
  }

  // What a guest's driver does before it uses its first vectors.
  void enable_msix(std::uint32_t vectors) {
    function->config_write(pci::kCommand, 2, 0x406);
    for (std::uint32_t i = 0; i < vectors; ++i) {
      bus.write(base + kScriptTable + i * 16, 4, 0xfee00000);
      bus.write(base + kScriptTable + i * 16 + 8, 4, 0x4020 + i);
      bus.write(base + kScriptTable + i * 16 + 12, 4, 0);
    }
    function->config_write(kScriptMsix + 2, 2, 0x8000);
  }

  Script script;
  Bytes config;
  std::chrono::milliseconds timeout = 5s;
  VfioFunctionOptions options;
  std::atomic<int> downs{0};
  FakeBus bus;
  FakeMapper pages;
  FakeMsiRouter msi;
  FakeIntxRouter intx;
  FakeIoEvents io_events;
  FakeEventLoop loop;
  std::vector<std::unique_ptr<ScriptedServer>> servers;
  std::unique_ptr<VfioFunction> function;
  std::uint64_t base = 0;  // of BAR 0

 private:
  std::mutex log_mutex_;
  std::vector<std::string> lines_;  // under log_mutex_
};

// One access on a thread of its own, as a vCPU makes it.
class InFlight {
 public:
  template <class Access>
  explicit InFlight(Access access)
      : thread_([this, access] {
          value_ = access();
          took_ = std::chrono::steady_clock::now() - began_;
          done_ = true;
        }) {}
  ~InFlight() {
    if (thread_.joinable()) thread_.join();
  }
  bool done() const { return done_; }
  std::uint64_t value() {
    if (thread_.joinable()) thread_.join();
    return value_;
  }
  std::chrono::steady_clock::duration took() {
    value();
    return took_;
  }

 private:
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::uint64_t value_ = 0;
  std::chrono::steady_clock::duration took_{};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace outboard::devices
