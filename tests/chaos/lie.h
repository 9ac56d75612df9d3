// One lie of a device server, told by whoever stands between it and the machine.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/chaos/nvme_process.h"
#include "tests/chaos/wire_tap.h"

namespace outboard::chaos {

// What a lie has to work with while its connection lasts.
class Stage final {
 public:
  Stage(WireTap& the_tap, NvmeProcess& the_server, std::chrono::milliseconds the_deadline)
      : tap(the_tap), server(the_server), deadline(the_deadline) {}

  WireTap& tap;
  NvmeProcess& server;                       // behind the tap
  const std::chrono::milliseconds deadline;  // of the machine's accesses
  // Eventfds as the machine gave them, by interrupt index and vector; and those of the connection
  // before.
  std::map<std::pair<std::uint32_t, std::uint32_t>, UniqueFd> eventfds;
  std::vector<UniqueFd> old_eventfds;
  UniqueFd twin;                       // granted by a lie: our end
  std::optional<WireTap::Event> kept;  // a message that is passed on later
  std::string failure;                 // what went otherwise than it must

  // A request of a server, whose reply has to be this errno (0: success) and size of payload.
  void ask(Command command, const Bytes& payload, std::uint32_t error, std::size_t reply_size = 0,
           std::uint16_t id = 0x7001, std::span<const int> fds = {});
  // A reply of the machine: to what ask() asked.
  void answered(const Incoming& reply);
  [[nodiscard]] bool waits() const { return !asked_.empty(); }
  // From now on replies are not looked at.
  void stop_listening() { listens_ = false; }

 private:
  struct Asked {
    std::uint16_t id;
    std::uint32_t error;
    std::size_t size;
  };
  std::deque<Asked> asked_;
  bool listens_ = true;
};

enum class Told {
  not_yet,  // the message is none of the lie's business: it is passed on
  handled,  // it is dealt with, more is to come
  done,     // the lie is out, the message dealt with
  ended,    // likewise, and the connection is over
};

struct Lie {
  enum class When { running, attaching /* the machine has to connect anew for it */ };
  enum class Outcome {
    goes_on,  // the machine takes it, on this connection
    dropped,  // the machine ends the connection, and comes again
    either,
    given_up,  // it ends the connection, and the device is lost for good
  };

  std::string item;  // of the conformance list: "C21"
  std::string what;
  When when = When::running;
  Outcome outcome = Outcome::goes_on;
  std::function<Told(Stage&, WireTap::Event&)> tell;
  // It leaves the device in a state that only a new connection heals.
  bool heal = false;
};

// By group of the list. Every one of them can be told to the same machine, one after the other.
std::vector<Lie> lies_in_frames();      // B
std::vector<Lie> lies_about_device();   // C
std::vector<Lie> lies_in_accesses();    // D
std::vector<Lie> lies_in_interrupts();  // E
std::vector<Lie> lies_about_windows();  // F
std::vector<Lie> lies_in_requests();    // G
std::vector<Lie> lies_in_time();        // H
std::vector<Lie> all_lies();
// Those that cost the device: another one is behind the socket.
std::vector<Lie> last_lies();
// Items that no server can express under a running machine, with where they are tested.
std::vector<std::pair<int, std::string>> untold_items();

}  // namespace outboard::chaos
