// CONFORMANCE B: framing.
#include <cerrno>
#include <thread>

#include "tests/chaos/tell.h"

namespace outboard::chaos {
namespace {

using When = Lie::When;
using Outcome = Lie::Outcome;
using wire::RegionAccess;

// A reply whose header is changed, and nothing else.
Tell with_header(std::function<void(wire::Header&)> change) {
  return at_read_reply([change = std::move(change)](Stage& stage, Event& event) {
    change(event.message.header);
    stage.tap.client().send(bytes(event));
  });
}

// A success that has only the first bytes of what it should have.
Tell cut_to(std::size_t size) {
  return at_read_reply([size](Stage& stage, Event& event) {
    event.message.payload.resize(size);
    reply(stage, event, event.message.payload);
  });
}

Tell refuse_with(std::uint32_t error) {
  return at_read_reply(
      [error](Stage& stage, Event& event) { reply(stage, event, {}, {}, wire::kError, error); });
}

Tell refuse(Command command) {
  return at_reply(
      command, [](Stage& stage, Event& event) { reply(stage, event, {}, {}, wire::kError, EIO); });
}

Tell with_trailing(std::size_t extra) {
  return at_read_reply([extra](Stage& stage, Event& event) {
    reply(stage, event, event.message.payload + Bytes(extra, std::byte{0xaa}));
  });
}

Tell with_descriptors(std::size_t count) {
  return at_read_reply([count](Stage& stage, Event& event) {
    const UniqueFd file = shared_file(4096);
    reply(stage, event, event.message.payload, std::vector<int>(count, file.get()));
  });
}

Told swap_region_infos(Stage& stage, Event& event) {
  if (!is_reply_to(event, Command::device_get_region_info)) return Told::not_yet;
  if (!stage.kept) {
    stage.kept = std::move(event);
    return Told::handled;
  }
  stage.tap.pass(event);
  stage.tap.pass(*stage.kept);
  stage.kept.reset();
  return Told::done;
}

}  // namespace

std::vector<Lie> lies_in_frames() {
  std::vector<Lie> out = {
      {"C16", "a reply one byte at a time", When::running, Outcome::goes_on,
       at_read_reply([](Stage& stage, Event& event) { stage.tap.client().dribble(bytes(event)); })},
      {"C17", "a reply and a request of its own in one piece", When::running, Outcome::goes_on,
       at_read_reply([](Stage& stage, Event& event) {
         stage.tap.client().send(bytes(event));
         stage.ask(Command::device_reset, {}, ENOSYS);
       })},
      {"C19", "flags that nobody knows", When::running, Outcome::goes_on,
       with_header([](wire::Header& header) { header.flags |= 0xffffffc0; })},
      {"C20", "a reply to nothing", When::running, Outcome::goes_on,
       at_read_reply([](Stage& stage, Event& event) {
         stage.tap.pass(event);
         event.message.header.id ^= 0x4000;
         stage.tap.client().send(bytes(event));
       })},
      {"C20", "the same reply twice", When::running, Outcome::goes_on,
       at_read_reply([](Stage& stage, Event& event) {
         stage.tap.client().send(bytes(event) + bytes(event));
       })},
      {"C20", "a reply after its deadline", When::running, Outcome::either,
       at_read_reply([](Stage& stage, Event& event) {
         std::this_thread::sleep_for(stage.deadline * 3 / 2);
         stage.tap.pass(event);
       })},
      {"C21", "a reply with another command", When::running, Outcome::dropped,
       with_header([](wire::Header& header) {
         header.command = static_cast<std::uint16_t>(Command::region_write);
       })},
      {"C22", "replies in another order", When::attaching, Outcome::goes_on, swap_region_infos},
      {"C23", "an error with a payload", When::running, Outcome::goes_on,
       at_read_reply([](Stage& stage, Event& event) {
         reply(stage, event, Bytes(36), {}, wire::kError, EINVAL);
       })},
      {"C24", "an error to a read", When::running, Outcome::goes_on, refuse_with(EIO)},
      {"C30", "descriptors with the body", When::running, Outcome::goes_on,
       at_read_reply([](Stage& stage, Event& event) {
         const UniqueFd file = shared_file(4096);
         const std::vector<int> fds(3, file.get());
         stage.tap.client().send(bytes_of(event.message.header));
         stage.tap.client().send(event.message.payload, fds);
       })},
      {"C31", "it reads nothing for longer than a deadline", When::running, Outcome::either,
       at_read_reply([](Stage& stage, Event& event) {
         stage.tap.pass(event);
         std::this_thread::sleep_for(stage.deadline * 5 / 2);
       })},
  };
  for (const std::uint32_t size : {0U, 15U, 0xffffffffU, 1U << 30}) {
    out.push_back({"C18", "a message of " + std::to_string(size) + " bytes", When::running,
                   Outcome::dropped,
                   with_header([size](wire::Header& header) { header.size = size; })});
  }
  for (const std::uint32_t type : {2U, 8U, 15U}) {
    out.push_back({"C19", "a message of type " + std::to_string(type), When::running,
                   Outcome::dropped, with_header([type](wire::Header& header) {
                     header.flags = (header.flags & ~wire::kTypeMask) | type;
                   })});
  }
  // What attaching cannot do without, and what it can.
  for (const Command command : {Command::version, Command::dma_map, Command::device_get_info,
                                Command::device_get_region_info, Command::device_get_irq_info}) {
    out.push_back({"C24", std::string("an error to ") + wire::name_of(command), When::attaching,
                   Outcome::dropped, refuse(command)});
  }
  for (const Command command :
       {Command::device_get_region_io_fds, Command::device_set_irqs, Command::region_write}) {
    Lie lie{"C24", std::string("an error to ") + wire::name_of(command), When::attaching,
            Outcome::goes_on, refuse(command)};
    lie.heal = true;
    out.push_back(std::move(lie));
  }
  for (const std::uint32_t error : {0U, 4096U, 0x80000000U}) {
    out.push_back({"C25", "an error of number " + std::to_string(error), When::running,
                   Outcome::goes_on, refuse_with(error)});
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{8}, sizeof(RegionAccess) + 1}) {
    out.push_back({"C26", "a success of " + std::to_string(size) + " bytes", When::running,
                   Outcome::dropped, cut_to(size)});
  }
  for (const std::size_t extra : {std::size_t{1}, std::size_t{1} << 20}) {
    out.push_back({"C27", std::to_string(extra) + " bytes behind a reply", When::running,
                   Outcome::goes_on, with_trailing(extra)});
  }
  for (const std::size_t count : {std::size_t{1}, std::size_t{16}, std::size_t{253}}) {
    out.push_back({"C28", std::to_string(count) + " descriptors that nobody asked for",
                   When::running, Outcome::goes_on, with_descriptors(count)});
  }
  return out;
}

}  // namespace outboard::chaos
