// The twin socket: requests of the server that do not get in the way of ours.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "vfio_user/client_counters.h"
#include "vfio_user/dma_server.h"
#include "vfio_user/message_reader.h"
#include "vfio_user/result.h"
#include "vfio_user/transport.h"

namespace outboard::vfio_user {

// Owns the socket and a thread that serves it. The thread takes no lock but that of the DmaServer,
// and may wait for room in the socket: a server that does not read its replies stops itself.
class TwinServer final {
 public:
  // `on_death` is called from the thread when the socket fails, at most once, and not after stop().
  TwinServer(std::unique_ptr<Transport> transport, const DmaServer& dma, std::uint32_t max_message,
             MessageObserver* observer, std::function<void(Error)> on_death);
  ~TwinServer();  // stop() and join()
  TwinServer(const TwinServer&) = delete;
  TwinServer& operator=(const TwinServer&) = delete;

  // Starts the thread, which first calls `started`, unless that is empty. Once.
  void start(std::function<void()> started);
  // Any thread: makes the thread end soon.
  void stop();
  // Not from the thread itself. Idempotent; one caller at a time.
  void join();

  void add_to(ClientCounters& counters) const;

 private:
  void run();
  Result<void> serve_one();

  const std::unique_ptr<Transport> transport_;
  const DmaServer& dma_;
  MessageObserver* const observer_;  // may be none
  const std::function<void(Error)> on_death_;
  MessageReader reader_;          // of the thread
  std::vector<std::byte> reply_;  // of the thread
  std::atomic<bool> stopping_{false};
  AtomicCounters counters_;
  std::thread thread_;
};

}  // namespace outboard::vfio_user
