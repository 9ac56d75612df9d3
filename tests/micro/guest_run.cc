#include "tests/micro/guest_run.h"

#include <csignal>
#include <exception>
#include <memory>

#include "vmm/box/breach.h"
#include "vmm/sandbox.h"

namespace outboard::micro {

Outside::Outside() : thread_([this] { serve(); }) {}

Outside::~Outside() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Outside::run(const std::function<void()>& action) {
  const std::lock_guard one_by_one(callers_);
  std::unique_lock lock(mutex_);
  action_ = &action;
  changed_.notify_all();
  changed_.wait(lock, [this] { return action_ == nullptr; });
}

void Outside::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || action_ != nullptr; });
    if (action_ == nullptr) return;
    lock.unlock();
    (*action_)();
    lock.lock();
    action_ = nullptr;
    changed_.notify_all();
  }
}

std::size_t MemoryConsole::write(std::span<const std::byte> bytes) {
  std::string copy;
  {
    const std::lock_guard lock(mutex_);
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (watcher_) copy = text_;
  }
  if (watcher_) outside_.run([&] { watcher_(copy); });
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

namespace {

void run_here(const vmm::MachineConfig& config, GuestRun& run, const WithMachine& with,
              std::chrono::milliseconds limit) {
  auto loop = vmm::EventLoop::create();
  if (!loop) {
    run.reason = {loop.error().status, 0, loop.error().message};
    return;
  }
  run.marks.stamp(vmm::Mark::process_start);
  MemoryConsole console;
  std::unique_ptr<vmm::Sandbox> sandbox;
  if (run.sandboxed) {
    box::watch_for_breaches(
        {.program = "micro", .exit_status = vmm::to_int(vmm::ExitStatus::sandbox)});
    auto made = vmm::Sandbox::create(config);
    if (!made) {
      run.reason = {made.error().status, 0, made.error().message};
      return;
    }
    sandbox = std::move(*made);
  }
  auto machine = vmm::Machine::create(
      config, {.loop = **loop, .console = console, .marks = run.marks, .sandbox = sandbox.get()});
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

}  // namespace

// A thread never leaves its sandbox, so the machine gets one of its own for its main thread. The
// test's own thread has to leave signals to it.
void run_guest(const vmm::MachineConfig& config, GuestRun& run, const WithMachine& with,
               std::chrono::milliseconds limit) {
  sigset_t signals;
  sigset_t before;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, &before);
  std::exception_ptr thrown;
  std::thread([&] {
    try {
      run_here(config, run, with, limit);
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace outboard::micro
