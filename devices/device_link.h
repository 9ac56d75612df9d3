// The connection of a function to its server, which may die and be replaced while the guest runs.
//
// Owns the current client. Accesses of the guest enter a gate, use the client and leave; who finds
// the client dead shuts the gate and, as long as the hold lasts, waits for the next client, outside
// the gate and with no lock held. Whoever replaces the client waits until the gate is empty.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/access_gate.h"
#include "devices/guest_log.h"
#include "devices/link_state.h"
#include "devices/posted_writes.h"
#include "devices/samples.h"
#include "vfio_user/client.h"

namespace outboard::devices {

class DeviceLink final {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    // How long accesses wait after a loss. None: a server that is gone is gone for good.
    std::optional<std::chrono::milliseconds> hold;
    LogSink log;       // of the states
    std::string name;  // for messages
    // Called once a loss, on any thread, perhaps inside an access: only to wake somebody up.
    std::function<void(const vfio_user::Error&)> on_down;
  };

  DeviceLink(std::shared_ptr<vfio_user::Client> client, Options options);
  ~DeviceLink();
  DeviceLink(const DeviceLink&) = delete;
  DeviceLink& operator=(const DeviceLink&) = delete;

  // --- accesses of the guest: any thread, no lock held ---

  // One access that may have to wait: for the length of one hold at most, however often the server
  // dies meanwhile.
  class Patience {
   public:
    explicit Patience(DeviceLink& link) : link_(link) {}
    ~Patience();
    Patience(const Patience&) = delete;
    Patience& operator=(const Patience&) = delete;

   private:
    friend class DeviceLink;
    DeviceLink& link_;
    std::optional<Clock::time_point> began_;  // to wait
  };
  // Waits until the device is served again. False: it is not, in time.
  bool wait(Patience& patience);

  // What happens to an access that was under way when the server died, once it is served again.
  enum class Repeat {
    always,      // a read
    if_resumed,  // a write: of no meaning to a device that has been reset since
  };
  // `op(client)` inside the gate, again with the next client if the server dies in it. Errors are
  // those of the operation; where no server comes in time, why the last one was lost.
  template <class Op>
  auto access(Repeat repeat, Op&& op) -> decltype(op(std::declval<vfio_user::Client&>())) {
    std::uint64_t generation = 0;
    if (gate_.enter()) [[likely]] {
      auto result = op(*client_);
      const bool settled = result.has_value() || client_->alive();
      generation = generation_;
      if (!settled) died_inside(*client_);
      gate_.leave();
      if (settled) {
        note(result);
        return result;
      }
    }
    return access_again(repeat, generation, op);
  }
  // Inside an operation: a read, and a write that is posted where that is allowed. A write that
  // may be lost with its server is remembered until an answer shows that it was not.
  vfio_user::Result<std::size_t> read(vfio_user::Client& client, std::uint32_t region,
                                      std::uint64_t offset, std::span<std::byte> into);
  vfio_user::Result<void> write(vfio_user::Client& client, std::uint32_t region,
                                std::uint64_t offset, std::span<const std::byte> from);
  // Once, and not at all while the gate is closed.
  template <class Op>
  auto try_access(Op&& op) -> decltype(op(std::declval<vfio_user::Client&>())) {
    if (!gate_.enter()) return tl::make_unexpected(reason());
    auto result = op(*client_);
    if (!result && !client_->alive()) died_inside(*client_);
    gate_.leave();
    return result;
  }

  // --- under the lock of the function, which is also held while the client is changed ---

  // Whether there is a client to be asked; notices its death.
  bool usable();
  // Whose calls fail at once when the connection is dead or there is none.
  vfio_user::Client* client() { return client_.get(); }
  // From any thread.
  bool up() const { return gate_.is_open(); }

  // The client is closed and nobody uses it any more; the gate is closed before.
  void quiet();
  // And it is gone, with its threads, descriptors and mappings.
  void retire();
  // The next one; the gate stays closed.
  void install(std::shared_ptr<vfio_user::Client> client);
  // Whether its server goes on where the one before stopped, as far as the two can tell.
  bool resumes() const;
  // The device has been reset: what was posted before is not repeated.
  void forget_posted() {
    if (posted_ != nullptr) posted_->forget_earlier();
  }
  // Sends what was posted to the one before.
  vfio_user::Result<void> repeat_posted();
  // Lets accesses in. False: the client is dead already, everything is as before.
  bool open(bool resumed);

  // --- states: any thread ---

  // The connection of that generation is dead, or of no use any more.
  void lose(std::uint64_t generation, const vfio_user::Error& why);
  // Counts the connections, from 1.
  std::uint64_t generation() const;
  void set_trying();
  void set_waiting(const std::string& why);
  // Nobody waits any more: for good.
  void fail(const std::string& why);
  // Whether accesses may wait for the server; at first they may. Not: all ones at once.
  void let_wait(bool may);
  // From now on nobody waits, and the client is closed: the machine ends.
  void stop();

  // Writes to these registers give others another meaning: where writes may have to be repeated,
  // these are not posted, so that what was posted before them is known to be done. Before the first
  // access.
  void set_fences(std::uint32_t region, std::vector<std::uint64_t> offsets) {
    fence_region_ = region;
    fences_ = std::move(offsets);
  }

  LinkCounters counters() const;
  vfio_user::ClientCounters messages() const;
  // Why the last connection was lost, as Kind::closed.
  vfio_user::Error reason() const;
  Clock::time_point lost_at() const;

 private:
  template <class Op>
  auto access_again(Repeat repeat, std::uint64_t sent_in, Op& op)
      -> decltype(op(std::declval<vfio_user::Client&>())) {
    Patience patience(*this);
    while (wait(patience)) {
      if (sent_in != 0 && repeat == Repeat::if_resumed && was_reset_since(sent_in)) break;
      if (!gate_.enter()) continue;
      if (sent_in != 0) repeated_.fetch_add(1, std::memory_order_relaxed);
      auto result = op(*client_);
      const bool settled = result.has_value() || client_->alive();
      sent_in = generation_;
      if (!settled) died_inside(*client_);
      gate_.leave();
      if (settled) {
        note(result);
        return result;
      }
    }
    unserved_.fetch_add(1, std::memory_order_relaxed);
    return tl::make_unexpected(reason());
  }
  template <class T>
  void note(const vfio_user::Result<T>& result) {
    if (result.has_value()) {
      if (slow_.load(std::memory_order_relaxed)) [[unlikely]]
        note_answer();
    } else if (result.error().kind == vfio_user::Error::Kind::timeout) {
      note_timeout(result.error());
    }
  }
  void note_answer();
  void note_timeout(const vfio_user::Error& why);
  void died_inside(vfio_user::Client& client);
  bool was_reset_since(std::uint64_t generation) const;
  bool is_fence(std::uint32_t region, std::uint64_t offset, std::size_t size) const;
  // The device is no longer ready, or is again: who reads the first reads the second.
  void say_trouble(const std::string& text);
  void say_ready(const std::string& text);

  const Options options_;
  GuestLog log_;
  AccessGate gate_;

  // Changed while the gate is closed and empty; read inside the gate, or under the function's lock
  // (generation_ under mutex_ too).
  std::shared_ptr<vfio_user::Client> client_;
  std::uint64_t generation_ = 1;
  std::unique_ptr<PostedWrites> posted_;  // none where nothing will be repeated
  std::uint32_t fence_region_ = 0;
  std::vector<std::uint64_t> fences_;
  std::optional<vfio_user::ResumeCapability> identity_;  // of the server in use

  // Any thread.
  std::atomic<bool> slow_{false};
  std::atomic<bool> trouble_told_{false};  // the last trouble was written, its end not yet
  std::atomic<std::uint64_t> unserved_{0};
  std::atomic<std::uint64_t> repeated_{0};

  mutable std::mutex mutex_;  // a leaf, but for the log
  std::condition_variable changed_;
  LinkState state_ = LinkState::ready;  // under mutex_, as all that follows
  bool up_ = true;
  bool stopped_ = false;
  bool may_wait_ = true;
  std::uint64_t reset_before_ = 0;  // the generation that began with a reset last
  vfio_user::Error reason_;
  Clock::time_point lost_at_{};
  Clock::time_point hold_until_{};
  std::string told_;          // why an attempt failed
  bool hold_passed_ = false;  // which has been said
  LinkCounters counters_;
  Samples recovery_;
  Samples stall_;
  vfio_user::ClientCounters past_;              // of the clients that are gone
  std::shared_ptr<vfio_user::Client> counted_;  // = client_, for who asks for its figures
};

}  // namespace outboard::devices
