#pragma once

// One run of `outboard` with the bench's guest in it, its board, its target and perhaps an NVMe
// controller. Main thread.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "tools/bench/access_board.h"
#include "tools/bench/access_counts.h"
#include "tools/bench/access_orders.h"
#include "vfio_user/result.h"
#include "vfio_user/unique_fd.h"

namespace outboard::bench {

class Session final {
 public:
  struct Options {
    std::string outboard;     // the program
    std::string nvme_socket;  // of a server that listens; empty: no controller
    Placement placement;
  };
  static constexpr std::uint32_t kNvmeSlot = 3;  // PCI slot of the controller

  // The guest waits for its first order when this returns. Errors carry what outboard said.
  static vfio_user::Result<std::unique_ptr<Session>> start(const Options& options);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  // Samples in ticks. After an error the session is of no more use.
  vfio_user::Result<std::vector<double>> run(const Order& order);
  [[nodiscard]] const TickLength& tick() const { return tick_; }
  // NVMe doorbells that the guest rang while reading, so far.
  [[nodiscard]] std::uint64_t rings() const { return board_->shared().rings; }

  // Ends the guest in order. What the whole run cost, without the waiting for orders and what the
  // guest did to set devices up.
  vfio_user::Result<Counts> end();

 private:
  Session() = default;
  vfio_user::Result<void> spawn(const Options& options);
  vfio_user::Result<void> wait_for_guest();
  [[nodiscard]] std::string report_path() const;
  [[nodiscard]] std::string said() const;
  void clean_up();

  std::string folder_;
  std::unique_ptr<Board> board_;
  vfio_user::UniqueFd log_;  // what outboard writes on stderr
  vfio_user::UniqueFd pidfd_;
  pid_t outboard_ = -1;
  std::uint64_t asked_ = 0;  // orders that the guest has asked for
  TickLength tick_;
};

}  // namespace outboard::bench
