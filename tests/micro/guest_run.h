// Runs a hand-made guest on the real machine, inside its sandbox, with the console kept in memory.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vmm/console.h"
#include "vmm/event_loop.h"
#include "vmm/machine.h"
#include "vmm/marks.h"

namespace outboard::micro {

// A thread that was there before the sandbox, and does for those inside what they may not.
class Outside final {
 public:
  Outside();
  ~Outside();
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;
  // Returns when it has been done. Any thread.
  void run(const std::function<void()>& action);

 private:
  void serve();

  std::mutex callers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* action_ = nullptr;  // under mutex_
  bool ending_ = false;                            // under mutex_
  std::thread thread_;
};

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
  // Called with everything written so far, while the vCPU that wrote it waits: on a thread outside
  // of the sandbox, since a test's watcher may do what no vCPU may.
  void on_output(std::function<void(const std::string&)> watcher) { watcher_ = std::move(watcher); }
  // For what a test does on the main thread while the machine runs. Not from its own thread.
  [[nodiscard]] Outside& outside() { return outside_; }

 private:
  void offer();

  mutable std::mutex mutex_;
  std::string text_;  // under mutex_
  std::function<void(const std::string&)> watcher_;
  Outside outside_;
  std::mutex typing_;
  std::string to_type_;    // under typing_ once the machine runs
  std::size_t typed_ = 0;  // under typing_: bytes of it that the guest has taken
  devices::EventLoop* loop_ = nullptr;
  Input input_;
  std::atomic<bool> started_{false};
};

struct GuestRun {
  bool sandboxed = true;  // before the run
  vmm::ExitReason reason;
  std::string console;
  std::string statistics;
  vmm::Marks marks;
};

// What a test does with the machine between its creation and its run, on the machine's main thread.
using WithMachine = std::function<void(vmm::Machine&, vmm::EventLoop&, MemoryConsole&)>;

// A machine with 128 MiB and the guest of that name.
vmm::MachineConfig guest_config(const std::string& name);

// Runs until the guest ends; after `limit` it is stopped with ExitStatus::deadline. A machine that
// cannot be created is returned as its error's status and message.
void run_guest(const vmm::MachineConfig& config, GuestRun& run, const WithMachine& with = {},
               std::chrono::milliseconds limit = std::chrono::seconds(60));

}  // namespace outboard::micro
