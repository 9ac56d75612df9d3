// A server that lies, one lie after the other: outboard-nvme with somebody in between.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/chaos/lie.h"
#include "tests/chaos/nvme_process.h"

namespace outboard::chaos {

struct LiarOptions {
  std::string socket;                                // where the machine finds its device
  std::vector<std::string> server;                   // argv of outboard-nvme, without --socket
  std::chrono::milliseconds deadline{1000};          // of the machine's accesses
  std::chrono::milliseconds patience{20000};         // for what has to come of a lie
  std::function<void(const std::string&)> say = {};  // lines for whoever follows
};

// One thread: run() on it, everything else before or after; stop() from any.
class Liar final {
 public:
  explicit Liar(LiarOptions options);
  ~Liar();

  // Serves the machine and tells it `lies` in order. After each `between` is called with its number
  // (from 1); the next is told when that returns, and the device served meanwhile. Then it serves
  // on until stop(). What went wrong: one line each.
  std::vector<std::string> run(const std::vector<Lie>& lies,
                               const std::function<bool()>& next_lie = {});
  void stop();
  // Lies that are told and dealt with. Any thread.
  [[nodiscard]] std::size_t told() const { return told_; }
  // From now on nothing is answered any more. Any thread.
  void hang() { hangs_ = true; }

 private:
  struct Connection;

  bool accept();  // false: stopped
  void end_connection();
  void look_at(const WireTap::Event& event);
  // One message passed on, or one lie's turn.
  WireTap::Event::Kind step(const Lie* lie, Told& told);
  std::string tell(const Lie& lie);
  bool serve_until(const std::function<bool()>& enough, std::chrono::milliseconds patience);
  void wrong(const std::string& what) { wrongs_.push_back(what); }
  [[nodiscard]] bool stopped() const;

  const LiarOptions options_;
  NvmeProcess server_;
  UniqueFd listener_;
  UniqueFd stop_;  // an eventfd
  std::unique_ptr<Connection> connection_;
  std::vector<UniqueFd> old_eventfds_;
  std::uint64_t reads_ = 0;  // of BAR 0 on this connection, answered
  std::vector<std::string> wrongs_;
  std::atomic<std::size_t> told_{0};
  std::atomic<bool> hangs_{false};
};

}  // namespace outboard::chaos
