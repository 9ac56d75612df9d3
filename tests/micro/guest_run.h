// Runs a hand-made guest on the real machine, with the console kept in memory.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "vmm/console.h"
#include "vmm/event_loop.h"
#include "vmm/machine.h"
#include "vmm/marks.h"

namespace outboard::micro {

// A console that remembers what the guest wrote and types what the test says.
class MemoryConsole final : public vmm::ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> bytes) override;
  void start(devices::EventLoop& loop, Input input, std::function<void()> output_ready,
             std::function<void(vmm::ConsoleCommand)> command) override;
  void input_ready() override;
  void stop() override { started_ = false; }
  void flush(std::chrono::milliseconds) override {}
  std::string description() const override { return {}; }

  std::string text() const;
  // Bytes for the guest, offered as fast as it takes them once it has printed "ready\n". Before the
  // machine runs.
  void type(std::string bytes);
  // More of them, while the machine runs. Main thread.
  void send(const std::string& bytes);
  // Called on a vCPU thread with everything written so far.
  void on_output(std::function<void(const std::string&)> watcher) { watcher_ = std::move(watcher); }

 private:
  void offer();

  mutable std::mutex mutex_;
  std::string text_;  // under mutex_
  std::function<void(const std::string&)> watcher_;
  std::mutex typing_;
  std::string to_type_;    // under typing_ once the machine runs
  std::size_t typed_ = 0;  // under typing_: bytes of it that the guest has taken
  devices::EventLoop* loop_ = nullptr;
  Input input_;
  std::atomic<bool> started_{false};
};

struct GuestRun {
  vmm::ExitReason reason;
  std::string console;
  std::string statistics;
  vmm::Marks marks;
};

// What a test does with the machine between its creation and its run, on the main thread.
using WithMachine = std::function<void(vmm::Machine&, vmm::EventLoop&, MemoryConsole&)>;

// A machine with 128 MiB and the guest of that name.
vmm::MachineConfig guest_config(const std::string& name);

// Runs until the guest ends; after `limit` it is stopped with ExitStatus::deadline. A machine that
// cannot be created is returned as its error's status and message.
void run_guest(const vmm::MachineConfig& config, GuestRun& run, const WithMachine& with = {},
               std::chrono::milliseconds limit = std::chrono::seconds(60));

}  // namespace outboard::micro
