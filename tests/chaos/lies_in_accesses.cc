// CONFORMANCE D: accesses of regions.
#include <cerrno>

#include "tests/chaos/tell.h"

namespace outboard::chaos {
namespace {

using When = Lie::When;
using Outcome = Lie::Outcome;
using wire::RegionAccess;

// The reply to a read with another fixed part, and so many bytes of data.
Tell with_access(std::function<void(RegionAccess&)> change, std::size_t data) {
  return at_read_reply([change = std::move(change), data](Stage& stage, Event& event) {
    auto access = event.message.as<RegionAccess>();
    change(access);
    reply(stage, event, bytes_of(access) + Bytes(data));
  });
}

// A posted write, which wants no reply, gets one.
Tell at_posted_write(std::function<void(Stage&, Event&)> act) {
  return [act = std::move(act)](Stage& stage, Event& event) {
    if (event.from != From::client || !is_command(event, Command::region_write) ||
        (event.message.header.flags & wire::kNoReply) == 0) {
      return Told::not_yet;
    }
    stage.tap.pass(event);
    act(stage, event);
    return Told::done;
  };
}

struct Entries {
  const char* what;
  std::uint32_t count;
  std::vector<wire::IoFdEntry> entries;
  std::size_t cut = 0;  // bytes that are missing at the end
};

// What it says about ioeventfds of BAR 0, with one eventfd.
Tell with_io_fds(const Entries& said) {
  return at_reply(Command::device_get_region_io_fds, [said](Stage& stage, Event& event) {
    Bytes payload;
    for (const auto& entry : said.entries) payload = std::move(payload) + bytes_of(entry);
    payload.resize(payload.size() - said.cut);
    const auto argsz = static_cast<std::uint32_t>(sizeof(wire::RegionIoFds) + payload.size());
    const auto index = event.message.as<wire::RegionIoFds>().index;
    const UniqueFd file = shared_file(4096);
    const int fd = file.get();
    reply(stage, event, bytes_of(wire::RegionIoFds{argsz, 0, index, said.count}) + payload,
          std::span(&fd, 1));
  });
}

}  // namespace

std::vector<Lie> lies_in_accesses() {
  std::vector<Lie> out = {
      {"C51", "fewer bytes than were asked for", When::running, Outcome::goes_on,
       with_access([](RegionAccess& access) { access.count = 2; }, 2)},
      {"C51", "no bytes", When::running, Outcome::goes_on,
       with_access([](RegionAccess& access) { access.count = 0; }, 0)},
      {"C51", "more bytes than were asked for", When::running, Outcome::dropped,
       with_access([](RegionAccess& access) { access.count = 64; }, 64)},
      {"C51", "fewer bytes than it counts", When::running, Outcome::dropped,
       with_access([](RegionAccess&) {}, 1)},
      {"C51", "bytes of another region", When::running, Outcome::dropped,
       with_access([](RegionAccess& access) { access.region = 3; }, 4)},
      {"C51", "bytes of another place", When::running, Outcome::dropped,
       with_access([](RegionAccess& access) { access.offset ^= 8; }, 4)},
      {"C52", "an error to a write", When::running, Outcome::goes_on,
       at_reply(
           Command::region_write,
           [](Stage& stage, Event& event) { reply(stage, event, {}, {}, wire::kError, EINVAL); })},
      {"C55", "it takes 64 bytes at a time", When::attaching, Outcome::goes_on,
       at_capabilities([](nlohmann::json& json) { json["max_data_xfer_size"] = 64; })},
      {"C58", "a reply to a write that wants none", When::running, Outcome::goes_on,
       at_posted_write([](Stage& stage, Event& event) {
         reply(stage, event, bytes_of(event.message.as<RegionAccess>()));
       })},
      {"C59", "an error to a write that wants no reply", When::running, Outcome::goes_on,
       at_posted_write(
           [](Stage& stage, Event& event) { reply(stage, event, {}, {}, wire::kError, EIO); })},
      {"C62", "it does not know ioeventfds", When::attaching, Outcome::goes_on,
       at_reply(
           Command::device_get_region_io_fds,
           [](Stage& stage, Event& event) { reply(stage, event, {}, {}, wire::kError, ENOTTY); })},
  };
  const wire::IoFdEntry plain{0x40, 4, 0, 0, 0, 0, 0};
  const auto with = [&](std::function<void(wire::IoFdEntry&)> change) {
    wire::IoFdEntry entry = plain;
    change(entry);
    return entry;
  };
  const std::vector<Entries> c61 = {
      {"two ioeventfds that are not there", 2, {}},
      {"two thousand million ioeventfds", 0x80000000, {plain}},
      {"an ioeventfd cut short", 1, {plain}, 4},
      {"an ioeventfd of a descriptor that is not there", 1, {with([](auto& e) {
         e.fd_index = 9;
       })}},
      {"an ioeventfd of an unknown type", 1, {with([](auto& e) { e.type = 7; })}},
      {"an ioeventfd of 3 bytes", 1, {with([](auto& e) { e.size = 3; })}},
      {"an ioeventfd of a port in memory", 1, {with([](auto& e) {
         e.flags = wire::kIoEventFdPio;
       })}},
  };
  for (const Entries& entries : c61) {
    out.push_back({"C61", entries.what, When::attaching, Outcome::goes_on, with_io_fds(entries)});
  }
  const std::vector<Entries> c63 = {
      {"an ioeventfd outside of its region", 1, {with([](auto& e) { e.offset = 1 << 20; })}},
      {"an ioeventfd that wraps", 1, {with([](auto& e) { e.offset = ~std::uint64_t{0} - 1; })}},
      {"two ioeventfds of one place", 2, {plain, plain}},
  };
  for (const Entries& entries : c63) {
    out.push_back({"C63", entries.what, When::attaching, Outcome::goes_on, with_io_fds(entries)});
  }
  return out;
}

}  // namespace outboard::chaos
