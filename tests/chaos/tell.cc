#include "tests/chaos/tell.h"

#include <utility>

#include <sys/mman.h>
#include <unistd.h>

namespace outboard::chaos {
namespace {

using Json = nlohmann::json;

bool is_read_reply(const Event& event) {
  return is_reply_to(event, Command::region_read) && event.message.header.error == 0 &&
         event.message.payload.size() > sizeof(wire::RegionAccess) &&
         event.message.as<wire::RegionAccess>().region == wire::kRegionBar0;
}

}  // namespace

void Stage::ask(Command command, const Bytes& payload, std::uint32_t error, std::size_t reply_size,
                std::uint16_t id, std::span<const int> fds) {
  asked_.push_back({id, error, reply_size});
  tap.client().request(id, command, payload, fds);
}

void Stage::answered(const Incoming& reply) {
  if (!listens_) return;
  if (asked_.empty()) {
    failure = "the machine answers what nobody asked";
    return;
  }
  const Asked asked = asked_.front();
  asked_.pop_front();
  if (reply.header.id != asked.id || reply.header.error != asked.error ||
      reply.payload.size() != asked.size) {
    failure = "its answer has errno " + std::to_string(reply.header.error) + " and " +
              std::to_string(reply.payload.size()) + " bytes, not errno " +
              std::to_string(asked.error) + " and " + std::to_string(asked.size);
  }
}

Tell at_read_reply(std::function<void(Stage&, Event&)> act) {
  return [act = std::move(act)](Stage& stage, Event& event) {
    if (!is_read_reply(event)) return Told::not_yet;
    act(stage, event);
    return Told::done;
  };
}

Tell at_read_pass(std::function<void(Stage&)> act) {
  return at_read_reply(and_pass(std::move(act)));
}

Tell at_reply(Command command, std::function<void(Stage&, Event&)> act) {
  return [command, act = std::move(act)](Stage& stage, Event& event) {
    if (event.from != From::server || !is_reply_to(event, command)) return Told::not_yet;
    act(stage, event);
    return Told::done;
  };
}

Tell at_command(Command command, std::function<void(Stage&, Event&)> act) {
  return [command, act = std::move(act)](Stage& stage, Event& event) {
    if (event.from != From::client || !is_command(event, command)) return Told::not_yet;
    act(stage, event);
    return Told::done;
  };
}

Tell at_region_info(std::uint32_t region,
                    std::function<void(Stage&, Event&, wire::RegionInfo)> act) {
  return [region, act = std::move(act)](Stage& stage, Event& event) {
    if (!is_reply_to(event, Command::device_get_region_info)) return Told::not_yet;
    const auto info = event.message.as<wire::RegionInfo>();
    if (info.index != region) return Told::not_yet;
    act(stage, event, info);
    return Told::done;
  };
}

void reply(Stage& stage, const Event& event, const Bytes& payload, std::span<const int> fds,
           std::uint32_t flags, std::uint32_t error) {
  stage.tap.client().reply(event.message.header, payload, fds, flags, error);
}

Bytes bytes(const Event& event) {
  return bytes_of(event.message.header) + event.message.payload;
}

void edit_version(Incoming& message, const std::function<void(Json&)>& edit) {
  if (message.payload.size() <= sizeof(wire::Version)) return;
  const char* const text = reinterpret_cast<const char*>(message.payload.data());
  Json json = Json::parse(std::string(text + sizeof(wire::Version)), nullptr, false);
  if (!json.is_object()) return;
  edit(json["capabilities"]);
  message.payload.resize(sizeof(wire::Version));
  message.payload = std::move(message.payload) + protocol_test::text_bytes(json.dump());
  message.header.size = static_cast<std::uint32_t>(sizeof(wire::Header) + message.payload.size());
}

Tell at_capabilities(std::function<void(Json&)> edit) {
  return at_reply(Command::version, [edit = std::move(edit)](Stage& stage, Event& event) {
    edit_version(event.message, edit);
    stage.tap.pass(event);
  });
}

UniqueFd shared_file(std::size_t size) {
  UniqueFd file(::memfd_create("chaos", MFD_CLOEXEC));
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0) file.reset();
  return file;
}

Bytes sparse_areas(const std::vector<wire::SparseMmapArea>& areas) {
  Bytes out = bytes_of(wire::CapabilityHeader{wire::kCapSparseMmap, 1, 0}) +
              bytes_of(wire::SparseMmap{static_cast<std::uint32_t>(areas.size()), 0});
  for (const auto& area : areas) out = std::move(out) + bytes_of(area);
  return out;
}

}  // namespace outboard::chaos
