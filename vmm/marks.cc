#include "vmm/marks.h"

#include <fmt/core.h>
#include <time.h>

namespace outboard::vmm {

std::string_view mark_name(Mark mark) {
  switch (mark) {
    case Mark::process_start:
      return "process start";
    case Mark::configuration_read:
      return "configuration read";
    case Mark::kvm_ready:
      return "KVM ready";
    case Mark::memory_ready:
      return "memory ready";
    case Mark::kernel_loaded:
      return "kernel loaded";
    case Mark::devices_attached:
      return "devices attached";
    case Mark::first_run:
      return "first KVM_RUN";
    case Mark::first_exit:
      return "first exit to user space";
    case Mark::first_console_byte:
      return "first console byte";
    case Mark::guest_user_space:
      return "guest user space";
    case Mark::power_off:
      return "power-off";
    case Mark::count:
      break;
  }
  return "?";
}

std::uint64_t Marks::now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(time.tv_nsec);
}

void Marks::stamp(Mark mark) {
  auto& slot = stamps_[static_cast<std::size_t>(mark)];
  if (slot.load(std::memory_order_relaxed) == 0) stamp_at(mark, now());
}

void Marks::stamp_at(Mark mark, std::uint64_t nanoseconds) {
  std::uint64_t unset = 0;
  stamps_[static_cast<std::size_t>(mark)].compare_exchange_strong(unset, nanoseconds);
}

std::optional<std::uint64_t> Marks::at(Mark mark) const {
  const std::uint64_t stamp = stamps_[static_cast<std::size_t>(mark)].load();
  if (stamp == 0) return std::nullopt;
  return stamp;
}

std::string Marks::report() const {
  std::string lines;
  const std::uint64_t start = at(Mark::process_start).value_or(0);
  for (std::size_t i = 0; i < stamps_.size(); ++i) {
    const auto mark = static_cast<Mark>(i);
    const auto stamp = at(mark);
    if (!stamp) continue;
    const double milliseconds =
        static_cast<double>(static_cast<std::int64_t>(*stamp - start)) / 1e6;
    lines += fmt::format("{:>10.3f} ms  {}\n", milliseconds, mark_name(mark));
  }
  return lines;
}

}  // namespace outboard::vmm
