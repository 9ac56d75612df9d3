// What the handlers of commands share: the controller's parts, and the few things a handler asks
// the controller to do.
#pragma once

#include <vector>

#include "tools/nvme/async_events.h"
#include "tools/nvme/features.h"
#include "tools/nvme/guest.h"
#include "tools/nvme/identify.h"
#include "tools/nvme/io_times.h"
#include "tools/nvme/log_pages.h"
#include "tools/nvme/namespaces.h"
#include "tools/nvme/queues.h"

namespace outboard::nvme {

struct Core {
  Core(Identity id, std::vector<Namespace> spaces, u16 io_queue_pairs, u16 vector_count,
       ControllerState& state_in, Doorbells& doorbells_in, GuestDma& dma_in,
       Interrupts& interrupts_in, SavedState* saved)
      : identity(std::move(id)),
        namespaces(std::move(spaces)),
        io_queues(io_queue_pairs),
        vectors(vector_count),
        state(state_in),
        doorbells(doorbells_in),
        dma(dma_in),
        interrupts(interrupts_in),
        journal(saved),
        features(state.features, namespaces, io_queues, vectors),
        logs(identity, counters, state.features),
        events(identity.async_events),
        queues(state, doorbells, dma, journal) {}

  // The namespace of an id, null when there is none.
  Namespace* find(u32 nsid) {
    return nsid >= 1 && nsid <= namespaces.size() ? &namespaces[nsid - 1] : nullptr;
  }
  u64 largest_transfer() const { return u64{4096} << identity.mdts_shift; }

  const Identity identity;
  std::vector<Namespace> namespaces;
  const u16 io_queues;
  const u16 vectors;
  ControllerState& state;
  Doorbells& doorbells;
  GuestDma& dma;
  Interrupts& interrupts;
  Journal journal;
  Counters counters;
  IoClock io_clock;
  Features features;
  LogPages logs;
  AsyncEvents events;
  Queues queues;
  u32 page_size = 4096;  // CC.MPS
};

class Engine {
 public:
  virtual ~Engine() = default;
  // The command is done; the request is the controller's again.
  virtual void finish(Request& request, Status status, u32 dw0 = 0) = 0;
  // Starts the backend operation that `request` describes; its handler's advance() follows.
  virtual void start(Request& request, Namespace& ns) = 0;
};

}  // namespace outboard::nvme
