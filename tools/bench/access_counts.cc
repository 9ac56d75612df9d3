#include "tools/bench/access_counts.h"

#include <nlohmann/json.hpp>

namespace outboard::bench {

vfio_user::Result<Counts> parse_counts(std::string_view report) {
  using Json = nlohmann::json;
  try {
    const Json json = Json::parse(report);
    Counts counts;
    const Json& exits = json.at("exits");
    counts.exits = exits.at("port").get<double>() + exits.at("memory").get<double>();
    for (const Json& device : json.at("devices")) {
      for (const Json& command : device.at("messages")) {
        counts.messages += command.at("sent").get<double>();
      }
      counts.replies += device.at("round_trips").get<double>();
    }
    return counts;
  } catch (const Json::exception& error) {
    return tl::unexpected(vfio_user::Error{
        vfio_user::Error::Kind::invalid, 0,
        std::string("outboard's boot report is not what this program knows (are both of the same "
                    "version?): ") +
            error.what()});
  }
}

}  // namespace outboard::bench
