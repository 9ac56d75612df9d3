// Words that lies are made of.
#pragma once

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "tests/chaos/lie.h"

namespace outboard::chaos {

using Event = WireTap::Event;
using From = WireTap::From;
using Tell = std::function<Told(Stage&, Event&)>;

// A lie at the next reply to a read of BAR 0, to a command, or at a command of the machine: `act`
// deals with the message.
Tell at_read_reply(std::function<void(Stage&, Event&)> act);
Tell at_reply(Command command, std::function<void(Stage&, Event&)> act);
Tell at_command(Command command, std::function<void(Stage&, Event&)> act);
// Of a region's information, with its fixed part.
Tell at_region_info(std::uint32_t region,
                    std::function<void(Stage&, Event&, wire::RegionInfo)> act);

// Before or after the message, which is passed on.
inline std::function<void(Stage&, Event&)> and_pass(std::function<void(Stage&)> act) {
  return [act = std::move(act)](Stage& stage, Event& event) {
    act(stage);
    stage.tap.pass(event);
  };
}
Tell at_read_pass(std::function<void(Stage&)> act);

// The reply that the event holds, with another payload, flags or errno.
void reply(Stage& stage, const Event& event, const Bytes& payload, std::span<const int> fds = {},
           std::uint32_t flags = 0, std::uint32_t error = 0);
// The bytes of a reply as it came.
Bytes bytes(const Event& event);
// The JSON of a VERSION message changed.
void edit_version(Incoming& message, const std::function<void(nlohmann::json&)>& edit);
// A lie in VERSION's reply: `edit` is given its "capabilities".
Tell at_capabilities(std::function<void(nlohmann::json&)> edit);

// A file in memory, and what says that a region has these areas, behind its fixed part.
UniqueFd shared_file(std::size_t size);
Bytes sparse_areas(const std::vector<wire::SparseMmapArea>& areas);

}  // namespace outboard::chaos
