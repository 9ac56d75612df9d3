// Requests in flight, and the ids that may not be used again yet.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vfio_user/result.h"
#include "vfio_user/transport.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

class Connection;

struct Reply {
  wire::Header header{};
  std::vector<std::byte> payload;  // at most Request::keep bytes of it
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
  std::chrono::milliseconds timeout_{};
  Deadline started_{};
  Deadline deadline_{};
  bool done_ = false;      // reply_ or failure_ is there
  bool sleeping_ = false;  // its thread waits for `arrived_`: a candidate for the reader role
  std::optional<Error> failure_;
  Reply reply_;
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

 private:
  struct Tombstone {
    std::uint16_t id;
    wire::Command command;
  };

  [[nodiscard]] bool taken(std::uint16_t id) const;

  std::vector<PendingCall*> calls_;  // few: a linear search beats a map
  std::vector<Tombstone> tombstones_;
  std::uint16_t next_id_ = 1;
};

}  // namespace outboard::vfio_user
