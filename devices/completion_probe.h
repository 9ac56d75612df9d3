// A one-shot probe between a function's vectors and the irqchip: when did the first interrupt come?
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "devices/device_marks.h"
#include "devices/event_loop.h"
#include "devices/interrupts.h"

namespace outboard::devices {

// Interrupts of a bypassed device are seen by nobody: its eventfd is an irqfd of KVM. Until a
// vector's first signal this router watches the eventfd on the event loop instead; then it stamps
// the time, connects the eventfd for good and signals it once for what it took out. Nothing is lost
// in between: a count the eventfd holds when it is connected raises the interrupt. Once a vector
// other than 0 has signalled, the others are connected too, and from then on at once.
//
// Any thread. mutex_ is taken inside the function's lock and is held while the event loop's and the
// router's own locks are taken. The callbacks, on the event loop, take only mutex_.
class CompletionProbe final : public MsiRouter {
 public:
  // All outlive the probe. The probe outlives the vectors.
  CompletionProbe(MsiRouter& router, EventLoop& loop, DeviceMarks& marks)
      : router_(router), loop_(loop), marks_(marks) {}

  Result<std::uint32_t> allocate_gsi() override { return router_.allocate_gsi(); }
  void free_gsi(std::uint32_t gsi) override { router_.free_gsi(gsi); }
  Result<void> set_routes(std::span<const Route> routes) override {
    return router_.set_routes(routes);
  }
  Result<void> connect(int eventfd, std::uint32_t gsi) override {
    return router_.connect(eventfd, gsi);
  }
  Result<void> connect_vector(std::uint32_t vector, int eventfd, std::uint32_t gsi) override;
  void disconnect(int eventfd, std::uint32_t gsi) override;

 private:
  struct Watched {
    std::uint32_t vector = 0;
    std::uint32_t gsi = 0;
    WatchId watch{};
  };
  using Map = std::map<int, Watched>;

  void signalled(int eventfd);
  Map::iterator hand_over(Map::iterator entry);  // mutex_ held, on the event loop

  MsiRouter& router_;
  EventLoop& loop_;
  DeviceMarks& marks_;
  std::mutex mutex_;
  Map watched_;  // under mutex_, by eventfd
};

}  // namespace outboard::devices
