// Asynchronous Event Requests (§5.2): the requests that wait, the events that wait for one, and
// the types that are masked until the host has read the log page an event names.
#pragma once

#include <vector>

#include "tools/nvme/log_pages.h"
#include "tools/nvme/request.h"

namespace outboard::nvme {

class AsyncEvents {
 public:
  explicit AsyncEvents(u32 limit) : limit_(limit) {}

  // False: as many wait as may.
  bool add(Request& request);
  // Takes a waiting request out (Abort); null when there is none.
  Request* remove(u16 sq, u16 command_id);
  // Drops events and gives back all requests (controller reset).
  std::vector<Request*> clear();

  // An event; the same one is kept once.
  void notify(EventType type, u8 info, LogId log);
  // The host has read that page with RAE clear.
  void log_read(LogId log);

  // The next request to complete, its dw0 filled in; null when nothing can be told now.
  Request* next();

 private:
  struct Event {
    EventType type;
    u8 info;
    LogId log;
  };
  std::vector<Request*> waiting_;
  std::vector<Event> events_;
  std::array<bool, 8> masked_{};
  u32 limit_;
};

}  // namespace outboard::nvme
