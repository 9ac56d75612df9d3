#include "tools/bench/access_measure.h"

#include <array>
#include <memory>
#include <utility>

#include "tools/bench/access_orders.h"
#include "tools/bench/access_session.h"
#include "tools/bench/floors.h"
#include "tools/bench/floors_machine.h"

namespace outboard::bench {
namespace {

using vfio_user::Result;

constexpr std::uint32_t kStores = 1000;  // in one sample of stores without an exit
constexpr double kTarget = 1.15;
constexpr std::size_t kDisk = 1 << 20;  // of the floors, not used here

// What is interleaved: the same order for outboard's guest and for the bare machine's.
struct Batch {
  Order order;
  Rounds guest;
  Rounds bare;
};

struct Batches {
  Batch read, write, bell, wake, mapped, memory;
  Rounds ping_pong, one_way, signal, signal_to_wake;
  Rounds read_in_one, write_in_one;  // the parts of the floor, in one loop

  std::array<Batch*, 6> all() { return {&read, &write, &bell, &wake, &mapped, &memory}; }
};

Batches make_batches(const AccessSettings& settings) {
  const auto gap = static_cast<std::uint64_t>(host_ticks_in_a_microsecond() * settings.gap_us);
  Batches batches;
  batches.read.order = {.operation = kTrappedRead, .samples = settings.samples};
  batches.write.order = {.operation = kPostedWrite, .samples = settings.samples, .gap = gap};
  batches.bell.order = {.operation = kBell, .samples = settings.samples, .gap = gap};
  batches.wake.order = {.operation = kBellToWake, .samples = settings.samples, .gap = gap};
  batches.mapped.order = {.operation = kMappedStore, .samples = settings.samples, .inner = kStores};
  batches.memory.order = {.operation = kMemoryStore, .samples = settings.samples, .inner = kStores};
  return batches;
}

Result<void> one_round(const AccessSettings& settings, Session& session, BareMachine& bare,
                       Floors& floors, Batches& batches) {
  for (Batch* const batch : batches.all()) {
    auto ticks = session.run(batch->order);
    if (!ticks) return tl::unexpected(ticks.error());
    batch->guest.push_back(std::move(*ticks));
    ticks = bare.run(batch->order);
    if (!ticks) return tl::unexpected(ticks.error());
    batch->bare.push_back(std::move(*ticks));
    if (batch == &batches.read) {
      batches.ping_pong.push_back(floors.ping_pong(settings.samples));
      ticks = bare.run(batch->order, [&floors] { floors.ask(); });
      if (!ticks) return tl::unexpected(ticks.error());
      batches.read_in_one.push_back(std::move(*ticks));
    }
    if (batch == &batches.write) {
      batches.one_way.push_back(floors.one_way(settings.samples, settings.gap_us));
      ticks = bare.run(batch->order, [&floors] { floors.tell(); });
      if (!ticks) return tl::unexpected(ticks.error());
      batches.write_in_one.push_back(std::move(*ticks));
    }
    if (batch == &batches.bell) {
      batches.signal.push_back(floors.signal(settings.samples, settings.gap_us));
    }
    if (batch == &batches.wake) {
      batches.signal_to_wake.push_back(floors.signal_to_wake(settings.samples, settings.gap_us));
    }
  }
  return {};
}

// A run of the machine with nothing but this order.
Result<Counts> whole_run(const AccessSettings& settings, const Order& order) {
  auto session = Session::start(
      {.outboard = settings.outboard, .nvme_socket = {}, .placement = settings.placement});
  if (!session) return tl::unexpected(session.error());
  if (auto done = (*session)->run(order); !done) return tl::unexpected(done.error());
  return (*session)->end();
}

// What one operation of the order costs in exits and messages: beyond the same run without any.
Result<Counts> count(const AccessSettings& settings, Order order) {
  order.samples = 0;
  const auto without = whole_run(settings, order);
  if (!without) return without;
  order.samples = settings.counted;
  const auto with = whole_run(settings, order);
  if (!with) return with;
  return (*with - *without) / (double{1} * order.samples * order.inner);
}

void add_rows(Batches& batches, double guest_tick, double bare_tick, AccessFigures& figures) {
  const auto row = [&](const char* key, const char* name, const Batch& batch, const char* floor,
                       const std::vector<Sample>& floors, std::optional<double> target) {
    const double scale = guest_tick / batch.order.inner;
    figures.rows.push_back(make_row(key, name, pool(batch.guest, scale),
                                    medians(batch.guest, scale), floor, floors, target));
  };
  row("trapped_read", "trapped BAR read", batches.read, "bare exit + socket ping-pong",
      {medians(batches.read.bare, bare_tick), medians(batches.ping_pong)}, kTarget);
  row("posted_write", "posted BAR write", batches.write, "bare exit + one-way send",
      {medians(batches.write.bare, bare_tick), medians(batches.one_way)}, kTarget);
  row("ioeventfd_store", "ioeventfd store", batches.bell, "bare ioeventfd store",
      {medians(batches.bell.bare, bare_tick)}, {});
  row("ioeventfd_wake", "ioeventfd store to awake server", batches.wake,
      "bare ioeventfd store to awake process", {medians(batches.wake.bare, bare_tick)}, {});
  row("mapped_store", "store to a mapped page", batches.mapped, "store to guest memory",
      {medians(batches.memory.guest, guest_tick / kStores)}, {});

  // Whether the sum of two parts can be had at all: a vCPU that has slept between two exits pays
  // for that when it goes on.
  const auto in_one = [&](const char* key, const char* name, const Batch& batch,
                          const Rounds& loop) {
    figures.figures.push_back(
        {key,
         name,
         "x",
         pair_ratios(medians(batch.guest, guest_tick), medians(loop, bare_tick)),
         {},
         false});
  };
  in_one("trapped_read_in_one", "trapped BAR read against the smallest loop that does both",
         batches.read, batches.read_in_one);
  in_one("posted_write_in_one", "posted BAR write against the smallest loop that does both",
         batches.write, batches.write_in_one);

  const auto floor = [&](const char* key, const char* name, const Rounds& rounds, double scale) {
    figures.floors.push_back({key, name, pool(rounds, scale)});
  };
  floor("bare_read_exit", "bare exit, a read", batches.read.bare, bare_tick);
  floor("bare_write_exit", "bare exit, a write", batches.write.bare, bare_tick);
  floor("bare_read_ping_pong", "bare exit, a read, with the ping-pong in it", batches.read_in_one,
        bare_tick);
  floor("bare_write_one_way", "bare exit, a write, with the send in it", batches.write_in_one,
        bare_tick);
  floor("bare_ioeventfd", "bare ioeventfd store", batches.bell.bare, bare_tick);
  floor("bare_ioeventfd_wake", "bare ioeventfd store to awake process", batches.wake.bare,
        bare_tick);
  floor("ping_pong", "socket ping-pong", batches.ping_pong, 1);
  floor("one_way", "one-way send to a blocked reader", batches.one_way, 1);
  floor("eventfd", "eventfd signal, a reader blocked", batches.signal, 1);
  floor("eventfd_wake", "eventfd signal to awake process", batches.signal_to_wake, 1);
  floor("memory_store", "store to guest memory", batches.memory.guest, guest_tick / kStores);
}

}  // namespace

Result<void> measure_accesses(const AccessSettings& settings, AccessFigures& figures) {
  Batches batches = make_batches(settings);
  auto session = Session::start(
      {.outboard = settings.outboard, .nvme_socket = {}, .placement = settings.placement});
  if (!session) return tl::unexpected(session.error());
  auto bare = BareMachine::create(settings.placement);
  if (!bare) return tl::unexpected(bare.error());
  auto floors = Floors::create(settings.placement, kDisk);
  if (!floors) return tl::unexpected(floors.error());

  for (std::uint32_t i = 0; i < settings.rounds; ++i) {
    if (!settings.progress("accesses", double{1} * i / settings.rounds)) return interrupted();
    auto done = one_round(settings, **session, **bare, **floors, batches);
    if (!done) return done;
  }
  const std::size_t first_row = figures.rows.size();
  add_rows(batches, (*session)->tick().ns(), (*bare)->tick().ns(), figures);
  if (auto ended = (*session)->end(); !ended) return tl::unexpected(ended.error());

  if (!settings.progress("exits and messages", 1)) return interrupted();
  const std::array<const Batch*, 5> counted = {&batches.read, &batches.write, &batches.bell,
                                               &batches.wake, &batches.mapped};
  for (std::size_t i = 0; i < counted.size(); ++i) {
    auto counts = count(settings, counted[i]->order);
    if (!counts) return tl::unexpected(counts.error());
    figures.rows[first_row + i].counts = *counts;
  }
  return {};
}

}  // namespace outboard::bench
