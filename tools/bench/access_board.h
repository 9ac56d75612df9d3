#pragma once

// The two devices of the bench: a board that gives orders to the guest, has a bell (an ioeventfd)
// and a mapped page; and a target with trapped registers and nothing else. Each is a vfio-user
// server in a process of its own, as a real device is.
//
// Made, used and destroyed by the bench's main thread, which has no other threads when it makes one
// (it forks).

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <sys/types.h>

#include "tools/bench/access_fork.h"
#include "tools/bench/access_memory.h"
#include "tools/bench/guest/protocol.h"
#include "vfio_user/result.h"
#include "vfio_user/unique_fd.h"

namespace outboard::bench {

class Board final {
 public:
  // Serves `folder`/board.sock and `folder`/target.sock from when it returns.
  static vfio_user::Result<std::unique_ptr<Board>> start(const std::string& folder,
                                                         const Placement& placement);
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;
  ~Board();  // ends both servers

  [[nodiscard]] const std::string& board_socket() const { return board_socket_; }
  [[nodiscard]] const std::string& target_socket() const { return target_socket_; }

  // What the guest sees too. Written by this side only while the guest waits for an order.
  [[nodiscard]] Shared& shared() const { return memory_.at<Shared>(0); }
  [[nodiscard]] std::span<const std::byte> memory() const { return memory_.bytes(); }

  // The guest waits for an order: the time (CLOCK_MONOTONIC, ns) at which it asked. Errors: it does
  // not ask within 60 s, or `guest` (a pidfd) has ended.
  vfio_user::Result<std::uint64_t> wait_for_guest(int guest);
  // Lets it have the order in shared(), or the end.
  void give(bool go_on);

 private:
  Board() = default;
  std::string board_socket_;
  std::string target_socket_;
  SharedMemory memory_;
  vfio_user::UniqueFd orders_;  // to the board's process
  pid_t board_ = -1;
  pid_t target_ = -1;
};

}  // namespace outboard::bench
