#include "vfio_user/capabilities.h"

#include <algorithm>
#include <cerrno>
#include <limits>

#include <nlohmann/json.hpp>

namespace outboard::vfio_user {

namespace {

using nlohmann::json;

constexpr std::size_t kResumeIdDigits = 32;

tl::unexpected<Error> refuse(const std::string& why) {
  return fail(Error::Kind::protocol, EINVAL, "the capabilities of VERSION: " + why);
}

/// The parser has no limit of its own.
bool too_deep(std::string_view text) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxCapabilitiesDepth) return true;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return false;
}

/// Reads keys of one object; the first thing wrong is kept as the error.
class Reader {
 public:
  Reader(const json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

  template <class T>
  void number(const char* key, T& value, T least) {
    const auto found = object_.find(key);
    if (found == object_.end()) return;
    if (!found->is_number_unsigned()) return wrong(key, "is no whole number of 0 or more");
    const auto given = found->template get<std::uint64_t>();
    if (given < least) return wrong(key, "must not be 0");
    value = static_cast<T>(std::min<std::uint64_t>(given, std::numeric_limits<T>::max()));
  }

  void boolean(const char* key, bool& value) {
    const auto found = object_.find(key);
    if (found == object_.end()) return;
    if (!found->is_boolean()) return wrong(key, "is neither true nor false");
    value = found->get<bool>();
  }

  // A text of exactly `digits` hexadecimal digits.
  void hex_digits(const char* key, std::string& value, std::size_t digits) {
    const auto found = object_.find(key);
    if (found == object_.end()) return;
    if (!found->is_string()) return wrong(key, "is no text");
    const auto& text = found->get_ref<const std::string&>();
    if (text.size() != digits ||
        text.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      return wrong(key, "is not made of 32 hexadecimal digits");
    }
    value = text;
  }

  const json* object(const char* key) {
    const auto found = object_.find(key);
    if (found == object_.end()) return nullptr;
    if (found->is_object()) return &*found;
    wrong(key, "is no object");
    return nullptr;
  }

  void take(const Reader& other) {
    if (problem_.empty()) problem_ = other.problem_;
  }
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  void wrong(const char* key, const char* why) {
    if (problem_.empty()) problem_ = "'" + prefix_ + key + "' " + why;
  }

  const json& object_;
  std::string prefix_;
  std::string problem_;
};

void read_twin_socket(Reader& parent, const json& object, Capabilities& capabilities) {
  Reader reader(object, "twin_socket.");
  reader.boolean("supported", capabilities.twin_socket);
  if (object.contains("fd_index")) {
    std::uint32_t index = 0;
    reader.number("fd_index", index, 0u);
    capabilities.twin_socket_fd_index = index;
  }
  parent.take(reader);
}

void read_migration(Reader& parent, const json& object, Capabilities& capabilities) {
  Reader reader(object, "migration.");
  MigrationCapability migration;
  reader.number("pgsize", migration.pgsize, std::uint64_t{1});
  reader.number("max_bitmap_size", migration.max_bitmap_size, std::uint64_t{0});
  capabilities.migration = migration;
  parent.take(reader);
}

void read_resume(Reader& parent, const json& object, Capabilities& capabilities) {
  Reader reader(object, "resume.");
  ResumeCapability resume;
  reader.hex_digits("id", resume.id, kResumeIdDigits);
  reader.boolean("resumed", resume.resumed);
  reader.boolean("supported", capabilities.resume_supported);
  if (!resume.id.empty()) capabilities.resume = std::move(resume);
  parent.take(reader);
}

}  // namespace

std::string to_json(const Capabilities& capabilities, Role role) {
  // Keys that have their default value are left out, except the one whose default peers disagree
  // about: the reply has to fit into a client's small buffer.
  const Capabilities defaults;
  auto keys = json::object();
  keys["max_msg_fds"] = capabilities.max_msg_fds;
  if (capabilities.max_data_xfer_size != defaults.max_data_xfer_size) {
    keys["max_data_xfer_size"] = capabilities.max_data_xfer_size;
  }
  if (capabilities.max_dma_maps != defaults.max_dma_maps) {
    keys["max_dma_maps"] = capabilities.max_dma_maps;
  }
  if (capabilities.pgsizes != defaults.pgsizes) keys["pgsizes"] = capabilities.pgsizes;
  if (capabilities.write_multiple) keys["write_multiple"] = true;
  if (capabilities.twin_socket) {
    auto& twin = keys["twin_socket"] = json::object({{"supported", true}});
    if (role == Role::server && capabilities.twin_socket_fd_index) {
      twin["fd_index"] = *capabilities.twin_socket_fd_index;
    }
  }
  if (role == Role::client && capabilities.resume_supported) {
    keys["resume"] = {{"supported", true}};
  }
  if (role == Role::server && capabilities.resume) {
    keys["resume"] = {{"id", capabilities.resume->id}, {"resumed", capabilities.resume->resumed}};
  }
  return json::object({{"capabilities", std::move(keys)}}).dump();
}

Result<Capabilities> parse_capabilities(std::string_view text) {
  Capabilities capabilities;
  if (text.empty()) return capabilities;
  if (text.size() > kMaxCapabilitiesJson) {
    return refuse("JSON of " + std::to_string(text.size()) + " bytes is too long");
  }
  if (too_deep(text)) return refuse("the JSON is nested too deeply");
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return refuse("this is no valid JSON");
  if (!root.is_object()) return refuse("the JSON is no object");
  Reader outer(root, "");
  const json* keys = outer.object("capabilities");
  if (!outer.problem().empty()) return refuse(outer.problem());
  if (keys == nullptr) return capabilities;

  Reader reader(*keys, "");
  reader.number("max_msg_fds", capabilities.max_msg_fds, 0u);
  reader.number("max_data_xfer_size", capabilities.max_data_xfer_size, std::uint64_t{1});
  reader.number("max_dma_maps", capabilities.max_dma_maps, 0u);
  reader.number("pgsizes", capabilities.pgsizes, std::uint64_t{1});
  reader.boolean("write_multiple", capabilities.write_multiple);
  if (const json* twin = reader.object("twin_socket")) {
    read_twin_socket(reader, *twin, capabilities);
  }
  if (const json* resume = reader.object("resume")) {
    read_resume(reader, *resume, capabilities);
  }
  if (const json* migration = reader.object("migration")) {
    read_migration(reader, *migration, capabilities);
  }
  if (!reader.problem().empty()) return refuse(reader.problem());
  return capabilities;
}

}  // namespace outboard::vfio_user
