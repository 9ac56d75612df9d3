// CONFORMANCE H: time and death. And what no server can do to a running machine.
#include <cerrno>
#include <csignal>
#include <thread>

#include <poll.h>
#include <sys/socket.h>

#include "tests/chaos/tell.h"

namespace outboard::chaos {
namespace {

using When = Lie::When;
using Outcome = Lie::Outcome;

Tell delayed(double deadlines) {
  return at_read_reply([deadlines](Stage& stage, Event& event) {
    std::this_thread::sleep_for(stage.deadline * deadlines);
    stage.tap.pass(event);
  });
}

Tell ended_at_read(std::function<void(Stage&)> how) {
  return [how = std::move(how)](Stage& stage, Event& event) {
    if (event.from != From::client || !is_command(event, Command::region_read) ||
        event.message.as<wire::RegionAccess>().region != 0) {
      return Told::not_yet;
    }
    how(stage);
    return Told::ended;
  };
}

// The server has forgotten, so the device is reset; and that goes as `answer` has it.
Tell at_reset(std::function<void(Stage&, Event&)> answer) {
  return [answer = std::move(answer)](Stage& stage, Event& event) {
    if (is_reply_to(event, Command::version)) {
      edit_version(event.message, [](nlohmann::json& json) { json.erase("resume"); });
      stage.tap.pass(event);
      return Told::handled;
    }
    if (event.from != From::server || !is_reply_to(event, Command::device_reset)) {
      return Told::not_yet;
    }
    answer(stage, event);
    return Told::done;
  };
}

}  // namespace

std::vector<Lie> lies_in_time() {
  return {
      {"C92", "a reply shortly before its deadline", When::running, Outcome::goes_on, delayed(0.6)},
      {"C92", "a reply shortly after its deadline", When::running, Outcome::either, delayed(1.3)},
      {"C93", "it is killed before it has read a message", When::running, Outcome::goes_on,
       ended_at_read([](Stage& stage) { stage.server.kill(); })},
      {"C93", "it is killed before its answer is out", When::running, Outcome::goes_on,
       [](Stage& stage, Event& event) {
         if (!is_reply_to(event, Command::region_read)) return Told::not_yet;
         stage.server.kill();
         return Told::ended;
       }},
      {"C94", "it stands still for longer than a deadline", When::running, Outcome::either,
       at_read_pass([](Stage& stage) {
         stage.server.signal(SIGSTOP);
         std::this_thread::sleep_for(stage.deadline * 2);
         stage.server.signal(SIGCONT);
       })},
      {"C95", "it closes the way to the machine", When::running, Outcome::dropped,
       at_read_pass([](Stage& stage) { stage.tap.client().shut_down(SHUT_WR); })},
      {"C95", "it closes the way from the machine", When::running, Outcome::dropped,
       at_read_pass([](Stage& stage) { stage.tap.client().shut_down(SHUT_RD); })},
      {"C95", "it closes with a message unread", When::running, Outcome::goes_on,
       [](Stage& stage, Event& event) {
         if (!is_reply_to(event, Command::region_read)) return Told::not_yet;
         stage.tap.pass(event);
         pollfd unread{stage.tap.client().fd(), POLLIN, 0};
         (void)::poll(&unread, 1, static_cast<int>(stage.deadline.count()));
         stage.server.kill();
         return Told::ended;
       }},
      {"C97", "one request is never answered", When::running, Outcome::goes_on,
       at_read_reply([](Stage&, Event&) {})},
      {"C98", "an error to the reset", When::attaching, Outcome::goes_on,
       at_reset(
           [](Stage& stage, Event& event) { reply(stage, event, {}, {}, wire::kError, EBUSY); })},
      {"C98", "the reset is never answered", When::attaching, Outcome::goes_on,
       at_reset([](Stage&, Event&) {})},
  };
}

std::vector<Lie> all_lies() {
  std::vector<Lie> out;
  for (const auto& group : {lies_in_frames, lies_about_device, lies_in_accesses, lies_in_interrupts,
                            lies_about_windows, lies_in_requests, lies_in_time}) {
    for (Lie& lie : group()) out.push_back(std::move(lie));
  }
  return out;
}

std::vector<std::pair<int, std::string>> untold_items() {
  return {
      {29, "descriptors are dropped when the machine's own limit is reached: b_stream_test"},
      {32, "signals come from the machine's side: b_stream_test"},
      {33, "ids are the machine's, 70000 of them: b_stream_test"},
      {34, "what the machine sends; the liar looks at every message: liar.cc"},
      {50, "the guest moves its BARs: devices_test, hostile_guest_test"},
      {53, "the width of the guest's accesses: d_access_test, devices_vfio_function_test"},
      {54, "accesses over the edge of shared pages: devices_vfio_function_test"},
      {56, "what of COMMAND the machine forwards: devices_config_test"},
      {57, "what the machine posts; the liar looks at every message: liar.cc"},
      {60, "the machine gathers writes where it is offered: d_access_test"},
      {67, "the order of the machine's messages: e_irq_test, devices_msix_test"},
      {72, "the machine does not ask for a self-test: e_irq_test"},
      {75, "which windows the machine sends; the liar looks at each: liar.cc"},
      {76, "how they are aligned; the liar looks at each: liar.cc"},
      {80, "there is no memory hot-plug"},
      {90, "DMA while a window is taken back: g_dma_request_test"},
      {91, "libvfio-user's own server: tests/peers"},
      {96, "how fast those who wait are released: h_death_test"},
      {100, "the machine ends while its server hangs: lies_test, the last lie"},
  };
}

}  // namespace outboard::chaos
