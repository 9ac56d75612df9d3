// Requests in flight, and the ids that may not be used again yet.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vfio_user/message_observer.h"
#include "vfio_user/result.h"
#include "vfio_user/transport.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

class Connection;

// The bytes of a reply; those of a register access need no memory of their own.
class ReplyBytes final {
 public:
  void assign(std::span<const std::byte> bytes) {
    large_.clear();
    small_size_ = 0;
    if (bytes.size() > small_.size()) {
      large_.assign(bytes.begin(), bytes.end());
    } else {
      std::copy(bytes.begin(), bytes.end(), small_.begin());
      small_size_ = bytes.size();
    }
  }
  [[nodiscard]] const std::byte* data() const {
    return large_.empty() ? small_.data() : large_.data();
  }
  [[nodiscard]] std::size_t size() const { return large_.empty() ? small_size_ : large_.size(); }
  [[nodiscard]] const std::byte* begin() const { return data(); }
  [[nodiscard]] const std::byte* end() const { return data() + size(); }

 private:
  std::array<std::byte, 64> small_;  // the first small_size_ of them
  std::size_t small_size_ = 0;
  std::vector<std::byte> large_;  // instead of small_, if not empty
};

struct Reply {
  wire::Header header{};
  ReplyBytes payload;  // at most Request::keep bytes of it
  std::vector<UniqueFd> fds;
};

// One request in flight and the place for its reply. Owned by the thread that asked; everything in
// it is guarded by the lock of the Connection from submit() until wait() returns. Giving it up
// early is allowed: its id is then tombstoned.
class PendingCall final {
 public:
  PendingCall() = default;
  ~PendingCall();
  PendingCall(const PendingCall&) = delete;
  PendingCall& operator=(const PendingCall&) = delete;

 private:
  friend class Connection;
  friend class PendingTable;

  Connection* connection_ = nullptr;  // set while the call is in the table
  wire::Command command_{};
  std::uint16_t id_ = 0;
  std::size_t keep_ = 0;
  bool poll_ = false;
  std::chrono::milliseconds timeout_{};
  Deadline started_{};
  Deadline deadline_{};
  bool done_ = false;      // reply_ or failure_ is there
  bool sleeping_ = false;  // its thread waits for `arrived_`: a candidate for the reader role
  std::optional<Error> failure_;
  Reply reply_;
  std::optional<ObservedMessage> observed_;  // only when somebody observes
  std::condition_variable arrived_;
};

// The calls in flight and the tombstones: ids of requests that gave up, whose reply may still come.
// No id is in it twice. Not thread-safe; guarded by the lock of the Connection.
class PendingTable final {
 public:
  // Beyond this many requests that never got an answer the server is not worth talking to.
  static constexpr std::size_t kMaxTombstones = 1024;

  struct Match {
    enum class Kind { unknown, wrong_command, late, call } kind = Kind::unknown;
    PendingCall* call = nullptr;
  };

  // An id that is neither pending nor tombstoned; false if there is none.
  [[nodiscard]] bool allocate(std::uint16_t& id);
  void add(PendingCall& call);
  // Finds what a reply belongs to and takes it out of the table.
  [[nodiscard]] Match take(std::uint16_t id, wire::Command command);
  // The call gives up; its id stays taken until the reply comes. False when there are too many of
  // these.
  [[nodiscard]] bool entomb(const PendingCall& call);
  // All calls in flight, which leave the table.
  [[nodiscard]] std::vector<PendingCall*> take_all();
  // Some call whose thread sleeps; nullptr if none.
  [[nodiscard]] PendingCall* sleeper() const;
  [[nodiscard]] std::size_t in_flight() const { return calls_.size(); }
  // Whether the reply to one in flight may bring descriptors. Needs no lock.
  [[nodiscard]] bool expects_fds() const { return with_fds_.load(std::memory_order_relaxed) > 0; }

 private:
  struct Tombstone {
    std::uint16_t id;
    wire::Command command;
  };

  [[nodiscard]] bool taken(std::uint16_t id) const;
  void left(const PendingCall& call);

  std::vector<PendingCall*> calls_;  // few: a linear search beats a map
  std::vector<Tombstone> tombstones_;
  std::uint16_t next_id_ = 1;
  std::atomic<std::size_t> with_fds_{0};  // calls in calls_ that expect them
};

}  // namespace outboard::vfio_user
