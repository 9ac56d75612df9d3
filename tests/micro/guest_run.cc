#include "tests/micro/guest_run.h"

namespace outboard::micro {

std::size_t MemoryConsole::write(std::span<const std::byte> bytes) {
  std::string copy;
  {
    const std::lock_guard lock(mutex_);
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (watcher_) copy = text_;
  }
  if (watcher_) watcher_(copy);
  return bytes.size();
}

std::string MemoryConsole::text() const {
  const std::lock_guard lock(mutex_);
  return text_;
}

void MemoryConsole::start(devices::EventLoop& loop, Input input, std::function<void()>,
                          std::function<void(vmm::ConsoleCommand)>) {
  loop_ = &loop;
  input_ = std::move(input);
  started_ = true;
}

void MemoryConsole::type(std::string bytes) {
  to_type_ = std::move(bytes);
  watcher_ = [this](const std::string& text) {
    if (text == "ready\n") loop_->post([this] { offer(); });
  };
}

void MemoryConsole::send(const std::string& bytes) {
  {
    const std::lock_guard lock(typing_);
    to_type_ += bytes;
  }
  offer();
}

void MemoryConsole::input_ready() {
  offer();  // at once, on the vCPU's thread: no wait for the main thread every 16 bytes
}

void MemoryConsole::offer() {
  const std::lock_guard lock(typing_);
  while (started_ && typed_ < to_type_.size()) {
    const std::size_t taken = input_(std::as_bytes(std::span(to_type_).subspan(typed_)));
    typed_ += taken;
    if (taken == 0) return;
  }
}

vmm::MachineConfig guest_config(const std::string& name) {
  vmm::MachineConfig config;
  config.memory = 128 * vmm::kMiB;
  config.kernel = std::string(OUTBOARD_GUESTS) + "/" + name;
  config.prefault = vmm::Prefault::off;
  return config;
}

void run_guest(const vmm::MachineConfig& config, GuestRun& run, const WithMachine& with,
               std::chrono::milliseconds limit) {
  auto loop = vmm::EventLoop::create();
  if (!loop) {
    run.reason = {loop.error().status, 0, loop.error().message};
    return;
  }
  run.marks.stamp(vmm::Mark::process_start);
  MemoryConsole console;
  auto machine = vmm::Machine::create(config, {**loop, console, run.marks, {}});
  if (!machine) {
    run.reason = {machine.error().status, 0, machine.error().message};
    return;
  }
  auto guard = (*loop)->after(limit, [&] {
    (*machine)->request_stop({vmm::ExitStatus::deadline, 0, "the test's time is over"});
  });
  if (with) with(**machine, **loop, console);
  run.reason = (*machine)->run();
  if (guard) (*loop)->unwatch(*guard);
  run.console = console.text();
  run.statistics = (*machine)->statistics();
}

}  // namespace outboard::micro
