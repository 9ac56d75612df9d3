#include "vmm/vcpu_set.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <exception>
#include <system_error>
#include <utility>

#include <fmt/core.h>
#include <sched.h>

#include "devices/page_guard.h"
#include "vmm/sandbox.h"

namespace outboard::vmm {
namespace {

// The kick: its only effect is that KVM_RUN, or a wait in a device's access, returns EINTR.
int kick_signal() {
  return SIGRTMIN;
}

void install_kick_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(kick_signal(), &action, nullptr);
}

Result<void> set_affinity(pthread_t thread, std::size_t index, const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::string list;
  for (const int cpu : cpus) {
    if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(static_cast<std::size_t>(cpu), &set);
    list += fmt::format("{}{}", list.empty() ? "" : ", ", cpu);
  }
  if (const int error = ::pthread_setaffinity_np(thread, sizeof(set), &set); error != 0) {
    return failure(ExitStatus::configuration,
                   fmt::format("vCPU {} cannot be bound to host CPU {}: {}; correct vcpu_affinity",
                               index, list, std::strerror(error)));
  }
  return {};
}

ExitKind kind_of(const VcpuExit& exit) {
  if (std::holds_alternative<MmioExit>(exit)) return ExitKind::memory;
  if (std::holds_alternative<PioExit>(exit)) return ExitKind::port;
  if (std::holds_alternative<InterruptedExit>(exit)) return ExitKind::interrupted;
  if (std::holds_alternative<PagesGoneExit>(exit)) return ExitKind::pages_gone;
  if (std::holds_alternative<SystemEventExit>(exit)) return ExitKind::system_event;
  if (std::holds_alternative<ShutdownExit>(exit)) return ExitKind::shutdown;
  return ExitKind::failure;
}

ExitEvent event_of(const VcpuExit& exit, ExitKind kind, std::uint32_t vcpu) {
  ExitEvent event;
  event.kind = kind;
  event.vcpu = vcpu;
  if (const auto* mmio = std::get_if<MmioExit>(&exit)) {
    event.address = mmio->address;
    event.size = static_cast<std::uint32_t>(mmio->data.size());
    event.write = mmio->write;
  } else if (const auto* pio = std::get_if<PioExit>(&exit)) {
    event.address = pio->port;
    event.size = pio->size * pio->count;
    event.write = pio->write;
  }
  return event;
}

void count(std::atomic<std::uint64_t>& counter) {
  // One writer: no locked instruction on an exit.
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

VcpuSet::VcpuSet(std::vector<Vcpu> vcpus, Bus& bus, Marks& marks, EventHandler handler,
                 Trace* trace, Sandbox* sandbox)
    : vcpus_(std::move(vcpus)),
      bus_(bus),
      marks_(marks),
      handler_(std::move(handler)),
      trace_(trace),
      sandbox_(sandbox) {
  for (std::size_t i = 0; i < vcpus_.size(); ++i) seats_.push_back(std::make_unique<Seat>());
}

Result<std::unique_ptr<VcpuSet>> VcpuSet::create(std::vector<Vcpu> vcpus, Bus& bus, Marks& marks,
                                                 EventHandler handler,
                                                 const std::vector<std::vector<int>>& affinity,
                                                 Trace* trace, Sandbox* sandbox) {
  install_kick_handler();
  std::unique_ptr<VcpuSet> set(
      new VcpuSet(std::move(vcpus), bus, marks, std::move(handler), trace, sandbox));
  for (std::size_t i = 0; i < set->seats_.size(); ++i) {
    try {
      set->seats_[i]->thread = std::jthread([raw = set.get(), i] { raw->thread_main(i); });
    } catch (const std::system_error& error) {
      set->seats_.resize(i);
      return failure(ExitStatus::internal_error,
                     fmt::format("cannot start a thread for vCPU {}: {}", i, error.what()));
    }
    const pthread_t thread = set->seats_[i]->thread.native_handle();
    ::pthread_setname_np(thread, fmt::format("vcpu{}", i).c_str());
    if (i < affinity.size() && !affinity[i].empty()) {
      if (auto bound = set_affinity(thread, i, affinity[i]); !bound) {
        set->seats_.resize(i + 1);
        return tl::unexpected(bound.error());
      }
    }
  }
  return set;
}

VcpuSet::~VcpuSet() {
  stop();
}

void VcpuSet::give(Order order) {
  const std::lock_guard lock(mutex_);
  if (order_.load() == Order::stop) return;
  order_.store(order);
  if (order != Order::run) {
    for (std::size_t i = 0; i < seats_.size(); ++i) {
      if (seats_[i]->state != State::running) continue;
      vcpus_[i].set_immediate_exit(true);
      ::pthread_kill(seats_[i]->thread.native_handle(), kick_signal());
    }
  }
  changed_.notify_all();
}

bool VcpuSet::all(State state) const {
  return std::ranges::all_of(seats_, [state](const auto& seat) { return seat->state == state; });
}

void VcpuSet::resume() {
  give(Order::run);
}

void VcpuSet::request_pause() {
  give(Order::pause);
}

void VcpuSet::pause() {
  give(Order::pause);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] {
    return std::ranges::none_of(seats_,
                                [](const auto& seat) { return seat->state == State::running; });
  });
}

void VcpuSet::stop() {
  give(Order::stop);
  for (const auto& seat : seats_) {
    if (seat->thread.joinable()) seat->thread.join();
  }
}

bool VcpuSet::wait_for_run(Vcpu& vcpu, Seat& seat) {
  std::unique_lock lock(mutex_);
  seat.state = State::parked;
  changed_.notify_all();
  changed_.wait(lock, [this] { return order_.load() != Order::pause; });
  if (order_.load() == Order::stop) {
    seat.state = State::ended;
    changed_.notify_all();
    return false;
  }
  seat.state = State::running;
  vcpu.set_immediate_exit(false);
  return true;
}

void VcpuSet::thread_main(std::size_t index) {
  Vcpu& vcpu = vcpus_[index];
  Seat& seat = *seats_[index];
  enter(sandbox_, ThreadKind::vcpu, fmt::format("vcpu{}", index));
  Bus::Reader reader(bus_);
  while (wait_for_run(vcpu, seat)) {
    try {
      run_until_told(vcpu, seat, reader);
    } catch (const std::exception& error) {
      report({VcpuEvent::Kind::failure, vcpu.index(),
              fmt::format("outboard failed while it handled an exit: {}", error.what())});
    }
  }
}

void VcpuSet::run_until_told(Vcpu& vcpu, Seat& seat, Bus::Reader& reader) {
  while (order_.load() == Order::run) {
    marks_.stamp(Mark::first_run);
    const VcpuExit exit = vcpu.run();
    marks_.stamp(Mark::first_exit);
    handle(exit, vcpu, seat, reader);
  }
  // Finish the instruction at hand; it may take more than one exit (a page-crossing store).
  vcpu.set_immediate_exit(true);
  for (int pieces = 0; pieces < 64; ++pieces) {
    const VcpuExit exit = vcpu.run();
    if (!std::holds_alternative<PioExit>(exit) && !std::holds_alternative<MmioExit>(exit)) break;
    handle(exit, vcpu, seat, reader);
  }
}

void VcpuSet::handle(const VcpuExit& exit, Vcpu& vcpu, Seat& seat, Bus::Reader& reader) {
  const ExitKind kind = kind_of(exit);
  count(seat.exits[static_cast<std::size_t>(kind)]);
  if (trace_ == nullptr) return act_on(exit, vcpu, seat, reader);
  ExitEvent event = event_of(exit, kind, vcpu.index());
  event.began = Marks::now();
  act_on(exit, vcpu, seat, reader);
  event.ended = Marks::now();
  trace_->exit(event);
}

void VcpuSet::act_on(const VcpuExit& exit, Vcpu& vcpu, Seat& seat, Bus::Reader& reader) {
  if (const auto* mmio = std::get_if<MmioExit>(&exit)) {
    if (mmio->write) {
      reader.write(devices::Space::mmio, mmio->address, mmio->data);
    } else {
      reader.read(devices::Space::mmio, mmio->address, mmio->data);
    }
    note_unanswered(seat, reader, "memory", mmio->address, mmio->write);
  } else if (const auto* pio = std::get_if<PioExit>(&exit)) {
    for (std::uint32_t i = 0; i < pio->count; ++i) {
      const auto one = pio->data.subspan(std::size_t{i} * pio->size, pio->size);
      if (pio->write) {
        reader.write(devices::Space::pio, pio->port, one);
      } else {
        reader.read(devices::Space::pio, pio->port, one);
      }
    }
    note_unanswered(seat, reader, "port", pio->port, pio->write);
  } else if (std::holds_alternative<PagesGoneExit>(exit)) {
    // Pages of a server are replaced, and its device will be declared dead; the guest goes on.
    if (repair(seat)) return;
    report({VcpuEvent::Kind::failure, vcpu.index(),
            "KVM_RUN failed: the host pages behind a guest address are gone (Bad address)"});
  } else if (const auto* failed = std::get_if<FailureExit>(&exit)) {
    report({VcpuEvent::Kind::failure, vcpu.index(), failed->what});
  } else if (std::holds_alternative<ShutdownExit>(exit)) {
    report({VcpuEvent::Kind::shutdown, vcpu.index(), "the guest's CPU shut down"});
  } else if (const auto* event = std::get_if<SystemEventExit>(&exit)) {
    switch (event->kind) {
      case SystemEventExit::Kind::power_off:
        report({VcpuEvent::Kind::power_off, vcpu.index(), "power-off"});
        break;
      case SystemEventExit::Kind::reset:
        report({VcpuEvent::Kind::reset, vcpu.index(), "reset"});
        break;
      case SystemEventExit::Kind::crash:
        report({VcpuEvent::Kind::failure, vcpu.index(), "the guest reported a crash"});
        break;
    }
  }
}

// Whether it is worth trying again. A server that cuts its file and makes it whole again, over and
// over, is met by a number of tries and then loses all pages that it could do that with.
bool VcpuSet::repair(Seat& seat) {
  constexpr std::uint32_t kTries = 64;
  std::uint64_t repairs = devices::repair_pages();
  if (repairs == seat.repairs) {
    if (++seat.unexplained <= kTries) return true;
    repairs = devices::give_up_pages();
  }
  seat.unexplained = 0;
  return repairs != std::exchange(seat.repairs, repairs);
}

void VcpuSet::note_unanswered(Seat& seat, const Bus::Reader& reader, const char* space,
                              std::uint64_t address, bool write) {
  const std::uint64_t unanswered = reader.unhandled();
  if (unanswered == seat.unanswered.load(std::memory_order_relaxed)) return;
  seat.unanswered.store(unanswered, std::memory_order_relaxed);
  if (!log::enabled(log::Level::debug)) return;
  log::write_limited(
      unanswered_log_, log::Level::debug,
      fmt::format("no device answers a {} {} at {:#x}", space, write ? "write" : "read", address));
}

void VcpuSet::report(VcpuEvent event) {
  request_pause();
  handler_(std::move(event));
}

std::vector<ExitCounters> VcpuSet::counters() const {
  std::vector<ExitCounters> all;
  for (const auto& seat : seats_) {
    ExitCounters& one = all.emplace_back();
    for (std::size_t i = 0; i < kExitKinds; ++i) {
      one.by_kind[i] = seat->exits[i].load(std::memory_order_relaxed);
    }
    one.unanswered = seat->unanswered.load(std::memory_order_relaxed);
  }
  return all;
}

}  // namespace outboard::vmm
