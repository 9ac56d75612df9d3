#include "tools/bench/access_nvme.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <poll.h>

#include "tools/bench/access_orders.h"
#include "tools/bench/access_session.h"
#include "tools/bench/floors.h"
#include "vmm/server_process.h"

namespace outboard::bench {
namespace {

using vfio_user::Error;
using vfio_user::Result;
using vmm::ServerProcess;

constexpr std::size_t kDisk = 64 << 20;
constexpr std::uint32_t kDepth = 32;
constexpr std::chrono::seconds kServerPatience{10};
constexpr double kIdlePercent = 1;

// What is remembered of a contender: ns an operation, in rounds.
struct Found {
  Rounds single, deep;
  Rounds single_floor, deep_floor, copy_floor;
  Sample single_medians, deep_medians;  // one a repetition
  Sample idle;                          // percent of a CPU
  std::optional<Counts> single_counts, deep_counts;
};

// A contender's server, running, and a machine with it.
struct Setting {
  std::unique_ptr<ServerProcess> server;
  std::unique_ptr<Session> session;
};

Result<Setting> set_up(const NvmeSettings& settings, const NvmeContender& contender) {
  Setting setting;
  std::string socket = contender.socket;
  if (!contender.server.empty()) {
    std::vector<int> affinity;
    if (settings.placement.server) affinity.push_back(*settings.placement.server);
    auto server = ServerProcess::start(contender.name, contender.server, affinity);
    if (!server) return tl::unexpected(server.error());
    if (auto listens = (*server)->wait_until_listening(kServerPatience); !listens) {
      return tl::unexpected(Error{listens.error().kind, listens.error().code,
                                  contender.name + ": " + listens.error().message});
    }
    socket = (*server)->socket_path();
    setting.server = std::move(*server);
  }
  auto session = Session::start(
      {.outboard = settings.outboard, .nvme_socket = socket, .placement = settings.placement});
  if (!session) return tl::unexpected(session.error());
  setting.session = std::move(*session);
  const Order open{.operation = kNvmeOpen,
                   .slot = Session::kNvmeSlot,
                   .flags = contender.shadow ? std::uint32_t{kWantShadow} : 0};
  if (auto done = setting.session->run(open); !done) {
    return tl::unexpected(
        Error{done.error().kind, done.error().code, contender.name + ": " + done.error().message});
  }
  return setting;
}

Result<Counts> tear_down(Setting& setting) {
  if (auto done = setting.session->run({.operation = kNvmeClose}); !done) {
    return tl::unexpected(done.error());
  }
  return setting.session->end();
}

// Percent of one CPU that the process uses while nobody asks it for anything.
Result<double> idle_cpu(pid_t process, std::chrono::milliseconds time) {
  clockid_t clock{};
  if (const int error = ::clock_getcpuclockid(process, &clock); error != 0) {
    return tl::unexpected(Error{Error::Kind::system, error, "the server's CPU clock"});
  }
  const auto used = [clock] {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
  };
  const double begin = used();
  const std::uint64_t begun = now_ns();
  ::poll(nullptr, 0, static_cast<int>(time.count()));
  return (used() - begin) * 100 / static_cast<double>(now_ns() - begun);
}

void append(Rounds& to, const std::vector<double>& ticks, double scale) {
  std::vector<double> round;
  for (const double tick : ticks) round.push_back(tick * scale);
  to.push_back(std::move(round));
}

Result<void> repetition(const NvmeSettings& settings, const NvmeContender& contender,
                        Floors& floors, bool with_idle, Found& found) {
  auto setting = set_up(settings, contender);
  if (!setting) return tl::unexpected(setting.error());
  Session& session = *setting->session;
  const Order single{.operation = kNvmeRead, .samples = settings.reads};
  const Order deep{.operation = kNvmeRead,
                   .samples = settings.batches,
                   .inner = settings.batch,
                   .depth = kDepth};
  // Queues, caches and the server's polling get going.
  if (auto done = session.run(deep); !done) return tl::unexpected(done.error());

  Rounds singles;
  Rounds deeps;
  for (std::uint32_t block = 0; block < settings.blocks; ++block) {
    auto ticks = session.run(single);
    if (!ticks) return tl::unexpected(ticks.error());
    singles.push_back(std::move(*ticks));
    ticks = session.run(deep);
    if (!ticks) return tl::unexpected(ticks.error());
    deeps.push_back(std::move(*ticks));
    append(found.single_floor, floors.uring_reads(settings.reads, 1, 1), 1);
    append(found.deep_floor, floors.uring_reads(settings.batches, settings.batch, kDepth),
           1.0 / settings.batch);
    append(found.copy_floor, floors.copy_reads(settings.batches, settings.batch),
           1.0 / settings.batch);
  }
  const double tick = session.tick().ns();
  found.single_medians.add(pool(singles, tick).median());
  found.deep_medians.add(pool(deeps, tick / settings.batch).median());
  for (const auto& round : singles) append(found.single, round, tick);
  for (const auto& round : deeps) append(found.deep, round, tick / settings.batch);

  if (with_idle && setting->server && contender.ours) {
    const auto idle = idle_cpu(setting->server->pid(), settings.idle);
    if (!idle) return tl::unexpected(idle.error());
    found.idle.add(*idle);
  }
  if (auto done = tear_down(*setting); !done) return tl::unexpected(done.error());
  return {};
}

// What one read costs in exits and messages: beyond the same run without any.
Result<Counts> count(const NvmeSettings& settings, const NvmeContender& contender,
                     std::uint32_t reads, std::uint32_t depth) {
  std::array<Counts, 2> runs;
  for (const bool with : {false, true}) {
    auto setting = set_up(settings, contender);
    if (!setting) return tl::unexpected(setting.error());
    const Order order{
        .operation = kNvmeRead, .samples = with ? 1U : 0U, .inner = reads, .depth = depth};
    if (auto done = setting->session->run(order); !done) return tl::unexpected(done.error());
    auto counts = tear_down(*setting);
    if (!counts) return counts;
    runs[with ? 1 : 0] = *counts;
  }
  return (runs[1] - runs[0]) / reads;
}

Sample rate(const Sample& ns) {
  Sample result;
  for (const double one : ns.values()) {
    if (one > 0) result.add(1e9 / one);
  }
  return result;
}

void add_rows(const NvmeContender& contender, const Found& found, AccessFigures& figures) {
  const auto row = [&](const char* key, const char* name, const Rounds& rounds, const Rounds& floor,
                       const std::optional<Counts>& counts) {
    const bool uring = !pool(floor).empty();
    AccessRow made = make_row(fmt::format("nvme_{}_{}", contender.key, key),
                              fmt::format("{}, {}", name, contender.name), pool(rounds),
                              medians(rounds), uring ? "io_uring, a file in memory" : "memcpy",
                              {medians(uring ? floor : found.copy_floor)}, {});
    made.counts = counts;
    figures.rows.push_back(std::move(made));
  };
  row("qd1", "4 KiB read, depth 1", found.single, found.single_floor, found.single_counts);
  row("qd32", "4 KiB read, depth 32", found.deep, found.deep_floor, found.deep_counts);
  figures.figures.push_back({"nvme_" + contender.key + "_iops",
                             "IOPS at depth 32, " + contender.name,
                             "reads/s",
                             rate(found.deep_medians),
                             {},
                             true});
  if (!found.idle.empty()) {
    figures.figures.push_back({"nvme_" + contender.key + "_idle", "idle CPU, " + contender.name,
                               "% of a CPU", found.idle, kIdlePercent, false});
  }
}

// How many times faster `a` is than `b`, repetition by repetition.
void add_pair(const NvmeContender& a, const Found& of_a, const NvmeContender& b, const Found& of_b,
              AccessFigures& figures) {
  // The issue asks it of the mode in which doorbells are a shared page.
  const std::optional<double> target = a.key == "page" ? std::optional(1.0) : std::nullopt;
  const auto add = [&](const char* key, const char* name, const Sample& mine,
                       const Sample& theirs) {
    figures.figures.push_back({fmt::format("{}_vs_{}_{}", a.key, b.key, key),
                               fmt::format("{}: {} against {}", name, a.name, b.name), "x",
                               pair_ratios(theirs, mine), target, true});
  };
  add("qd1", "speed at depth 1", of_a.single_medians, of_b.single_medians);
  add("qd32", "speed at depth 32", of_a.deep_medians, of_b.deep_medians);
}

}  // namespace

Result<void> measure_nvme(const NvmeSettings& settings, AccessFigures& figures) {
  auto floors = Floors::create(settings.placement, kDisk);
  if (!floors) return tl::unexpected(floors.error());
  const std::size_t count_of = settings.contenders.size();
  std::vector<Found> found(count_of);

  for (std::uint32_t i = 0; i < settings.repetitions; ++i) {
    for (std::size_t j = 0; j < count_of; ++j) {
      const std::size_t at = i % 2 == 0 ? j : count_of - 1 - j;
      const NvmeContender& contender = settings.contenders[at];
      if (!settings.progress("reads, " + contender.name,
                             static_cast<double>(i * count_of + j) /
                                 static_cast<double>(settings.repetitions * count_of))) {
        return interrupted();
      }
      const bool with_idle = settings.idle.count() > 0 && i < 3;
      auto done = repetition(settings, contender, **floors, with_idle, found[at]);
      if (!done) return done;
    }
  }
  for (std::size_t i = 0; i < count_of; ++i) {
    if (!settings.progress("exits and messages", 1)) return interrupted();
    auto single = count(settings, settings.contenders[i], settings.reads, 1);
    if (!single) return tl::unexpected(single.error());
    found[i].single_counts = *single;
    auto deep = count(settings, settings.contenders[i], settings.batch, kDepth);
    if (!deep) return tl::unexpected(deep.error());
    found[i].deep_counts = *deep;
  }

  Rounds copies;
  for (std::size_t i = 0; i < count_of; ++i) {
    add_rows(settings.contenders[i], found[i], figures);
    copies.insert(copies.end(), found[i].copy_floor.begin(), found[i].copy_floor.end());
  }
  figures.floors.push_back({"copy_4k", "memcpy of 4 KiB", pool(copies)});
  for (std::size_t i = 0; i < count_of; ++i) {
    for (std::size_t j = 0; j < count_of; ++j) {
      if (!settings.contenders[i].ours || settings.contenders[j].ours) continue;
      add_pair(settings.contenders[i], found[i], settings.contenders[j], found[j], figures);
    }
  }
  return {};
}

}  // namespace outboard::bench
