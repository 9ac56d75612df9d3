#pragma once

// Every exit of every vCPU and every message of every device, with its times: what --trace writes.
// Owned by the program, given to the machine, written out when the machine has ended.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "devices/first_times.h"
#include "vfio_user/message_observer.h"
#include "vmm/event_log.h"
#include "vmm/exits.h"

namespace outboard::vmm {

// Times are nanoseconds of CLOCK_MONOTONIC.
struct ExitEvent {
  std::uint64_t began = 0;    // KVM_RUN returned
  std::uint64_t ended = 0;    // the exit was dealt with
  std::uint64_t address = 0;  // port, or guest-physical; 0 where the kind has none
  std::uint32_t size = 0;     // bytes of all accesses together; 0 likewise
  std::uint32_t vcpu = 0;
  ExitKind kind = ExitKind::failure;
  bool write = false;
};

struct MessageEvent {
  std::uint32_t device = 0;  // index into devices()
  vfio_user::ObservedMessage message;
};

class Trace final {
 public:
  // Some minutes of a busy guest; 40 and 64 MiB of address space, of memory what is used.
  static constexpr std::size_t kEvents = std::size_t{1} << 20;

  explicit Trace(std::size_t exits = kEvents, std::size_t messages = kEvents)
      : exits_(exits), messages_(messages) {}

  // Any thread.
  void exit(const ExitEvent& event) { exits_.add(event); }

  // Who hears of the messages of one more device; it lives as long as the trace. Main thread.
  [[nodiscard]] vfio_user::MessageObserver& add_device(std::string name);

  // These once the machine has ended.
  [[nodiscard]] std::span<const ExitEvent> exits() const { return exits_.events(); }
  [[nodiscard]] std::span<const MessageEvent> messages() const { return messages_.events(); }
  [[nodiscard]] std::uint64_t dropped() const { return exits_.dropped() + messages_.dropped(); }
  [[nodiscard]] const std::string& device(std::size_t index) const { return devices_[index].name; }
  [[nodiscard]] std::size_t devices() const { return devices_.size(); }

 private:
  struct Device final : vfio_user::MessageObserver {
    Device(std::string of, std::uint32_t at, EventLog<MessageEvent>& log)
        : name(std::move(of)), index(at), messages(log) {}
    void message(const vfio_user::ObservedMessage& message) override {
      messages.add({index, message});
    }

    const std::string name;
    const std::uint32_t index;
    EventLog<MessageEvent>& messages;
  };

  EventLog<ExitEvent> exits_;
  EventLog<MessageEvent> messages_;
  std::deque<Device> devices_;  // grows only in add_device()
};

}  // namespace outboard::vmm
