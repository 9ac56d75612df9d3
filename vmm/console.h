#pragma once

// The host's end of the guest's serial console: a terminal, a file, a pseudo-terminal, a Unix
// socket, or nothing. Owned by the command that runs the machine; the Machine's UART writes to it
// (vCPU threads), the event loop feeds input from it (main thread).

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "devices/event_loop.h"
#include "devices/uart.h"
#include "vfio_user/result.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

// What a person asked for at the keyboard with the escape key (Ctrl-A).
enum class ConsoleCommand { quit /* x */, power_button /* p */, help /* h */ };

// Puts the terminal back as it was before a console made it raw, if one did. Async-signal-safe: for
// ways out that run no destructor.
void restore_terminal();

class ConsoleBackend : public devices::ConsoleOutput {
 public:
  // Opens what `config` asks for. Errors name the path and the remedy.
  [[nodiscard]] static vfio_user::Result<std::unique_ptr<ConsoleBackend>> open(
      const ConsoleConfig& config);

  // Gives guest-bound bytes to the UART: returns how many it took. The rest is offered again when
  // `input_ready` is called. Main thread.
  using Input = std::function<std::size_t(std::span<const std::byte>)>;

  // Starts input, and watches for room to write. `output_ready` is called (main thread) when a
  // write that took fewer bytes than offered may be tried again. `command` is called (main thread)
  // for escape sequences of a person at the terminal.
  virtual void start(devices::EventLoop& loop, Input input, std::function<void()> output_ready,
                     std::function<void(ConsoleCommand)> command) = 0;

  // The UART has room for input again. Any thread.
  virtual void input_ready() = 0;

  // Ends input, unwatches everything and restores the terminal. Main thread; may be repeated.
  virtual void stop() = 0;

  // Waits at most `deadline` until all output that was taken has left the process. Main thread.
  virtual void flush(std::chrono::milliseconds deadline) = 0;

  // What to tell the person who started the machine ("console on /dev/pts/3"), or empty.
  [[nodiscard]] virtual std::string description() const = 0;
};

}  // namespace outboard::vmm
