#include "vmm/config.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

#include <fmt/core.h>

#define TOML_ENABLE_FORMATTERS 0
#include "vfio_user/given_fds.h"
#include "vmm/arch.h"
#include "vmm/dma_plan.h"
#include "vmm/given_files.h"
#include "vmm/server_user.h"
#include "vmm/toml.h"
#include "vmm/units.h"

namespace outboard::vmm {
namespace {

namespace fs = std::filesystem;
using Errors = std::vector<std::string>;

// The number of single-letter edits between two words: which known key did the user mean?
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  const auto best = std::min_element(known.begin(), known.end(), [&](auto& a, auto& b) {
    return distance(word, a) < distance(word, b);
  });
  if (best == known.end() || distance(word, *best) > std::max<std::size_t>(2, word.size() / 3))
    return {};
  return *best;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

std::string_view type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

// What all tables of one file share while it is read.
struct Context {
  std::string file;
  std::string folder;                // of the file: relative paths start here
  std::set<std::string> overridden;  // dotted paths that came from the command line
  Errors errors;

  void fail(const toml::source_region& at, const std::string& path, const std::string& what) {
    if (overridden.contains(path))
      errors.push_back(fmt::format("--set {}: {}", path, what));
    else if (at.begin.line == 0)
      errors.push_back(fmt::format("{}: {}", file, what));
    else
      errors.push_back(fmt::format("{}:{}:{}: {}", file, at.begin.line, at.begin.column, what));
  }
};

// One table being read: every getter notes its key as known; finish() refuses the others.
class Table {
 public:
  Table(Context& context, const toml::table& table, std::string path)
      : context_(context), table_(table), path_(std::move(path)) {}

  [[nodiscard]] std::string path_of(std::string_view key) const {
    return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  }

  const toml::node* find(const std::string& key) {
    known_.push_back(key);
    return table_.get(key);
  }

  void fail(const std::string& key, const std::string& what) {
    const toml::node* node = table_.get(key);
    context_.fail(node != nullptr ? node->source() : table_.source(), path_of(key), what);
  }

  void wrong_type(const std::string& key, const toml::node& node, std::string_view wanted) {
    fail(key, fmt::format("'{}' must be {}, not {}", path_of(key), wanted, type_name(node)));
  }

  void string(const std::string& key, std::string& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (const auto value = node->value_exact<std::string>())
      out = *value;
    else
      wrong_type(key, *node, "a string");
  }

  void boolean(const std::string& key, bool& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (const auto value = node->value_exact<bool>())
      out = *value;
    else
      wrong_type(key, *node, "true or false");
  }

  template <class Int>
  void integer(const std::string& key, Int& out, std::int64_t low, std::int64_t high) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto value = node->value_exact<std::int64_t>();
    if (!value) return wrong_type(key, *node, "an integer");
    if (*value < low || *value > high)
      return fail(key,
                  fmt::format("'{}' is {}; it must be {} to {}", path_of(key), *value, low, high));
    out = static_cast<Int>(*value);
  }

  template <class Int>
  void integer(const std::string& key, std::optional<Int>& out, std::int64_t low,
               std::int64_t high) {
    if (table_.get(key) == nullptr) return static_cast<void>(find(key));
    Int value{};
    const std::size_t before = context_.errors.size();
    integer(key, value, low, high);
    if (context_.errors.size() == before) out = value;
  }

  // A size in bytes: a string with a unit, or a whole number of bytes.
  void size(const std::string& key, std::uint64_t& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (const auto number = node->value_exact<std::int64_t>(); number && *number >= 0) {
      out = static_cast<std::uint64_t>(*number);
      return;
    }
    const auto text = node->value_exact<std::string>();
    if (!text) return wrong_type(key, *node, "a size such as \"512M\"");
    if (const auto bytes = parse_size(*text))
      out = *bytes;
    else
      fail(key, fmt::format("'{}' is \"{}\", which is no size; write it like \"512M\" or \"4G\"",
                            path_of(key), *text));
  }

  // A guest-physical address: a string, or a number, which TOML can write as 0x....
  void address(const std::string& key, std::uint64_t& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto number = node->value_exact<std::int64_t>();
    const auto text = node->value_exact<std::string>();
    if (!text && !number) return wrong_type(key, *node, "an address such as \"0x100000000\"");
    if (const auto value = text ? parse_address(*text) : std::optional<std::uint64_t>(*number);
        value && (text || *number >= 0)) {
      out = *value;
      return;
    }
    fail(key,
         fmt::format("'{}' is no address; write it like \"0x100000000\" or \"4G\"", path_of(key)));
  }

  void duration(const std::string& key, std::chrono::milliseconds& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto text = node->value_exact<std::string>();
    if (!text) return wrong_type(key, *node, "a time such as \"5s\" or \"250ms\"");
    const auto time = parse_duration(*text);
    if (!time)
      return fail(key, fmt::format("'{}' is \"{}\", which is no time; write it like \"5s\" or "
                                   "\"250ms\"",
                                   path_of(key), *text));
    if (time->count() == 0) return fail(key, fmt::format("'{}' must not be zero", path_of(key)));
    out = *time;
  }

  template <class Enum>
  void choice(const std::string& key, Enum& out,
              const std::vector<std::pair<std::string, Enum>>& choices) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto text = node->value_exact<std::string>();
    if (!text) return wrong_type(key, *node, "a string");
    std::vector<std::string> words;
    for (const auto& [word, value] : choices) {
      if (word == *text) {
        out = value;
        return;
      }
      words.push_back(fmt::format("\"{}\"", word));
    }
    fail(key,
         fmt::format("'{}' is \"{}\"; it must be one of {}", path_of(key), *text, joined(words)));
  }

  // A path, made absolute: relative to the file, or to the working directory for an override. One
  // that names a descriptor stays as it is.
  void path(const std::string& key, std::string& out) {
    string(key, out);
    if (out.empty() || table_.get(key) == nullptr || vfio_user::is_given_fd(out)) return;
    const fs::path folder =
        context_.overridden.contains(path_of(key)) ? fs::current_path() : fs::path(context_.folder);
    out = (folder / out).lexically_normal().string();
  }

  void strings(const std::string& key, std::vector<std::string>& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const toml::array* array = node->as_array();
    if (array == nullptr) return wrong_type(key, *node, "an array of strings");
    out.clear();
    for (const toml::node& element : *array) {
      const auto value = element.value_exact<std::string>();
      if (!value) return wrong_type(key, element, "an array of strings");
      out.push_back(*value);
    }
  }

  void cpus(const std::string& key, const toml::array& array, std::vector<int>& out) {
    for (const toml::node& element : array) {
      const auto value = element.value_exact<std::int64_t>();
      if (!value || *value < 0 || *value > 8191)
        return fail(key, fmt::format("'{}' must hold host CPU numbers from 0", path_of(key)));
      out.push_back(static_cast<int>(*value));
    }
  }

  void cpus(const std::string& key, std::vector<int>& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (node->as_array() == nullptr) return wrong_type(key, *node, "an array of host CPU numbers");
    cpus(key, *node->as_array(), out);
  }

  void cpu_lists(const std::string& key, std::vector<std::vector<int>>& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const toml::array* lists = node->as_array();
    if (lists == nullptr)
      return wrong_type(key, *node, "an array with one array of host CPU numbers a vCPU");
    for (const toml::node& list : *lists) {
      if (list.as_array() == nullptr)
        return wrong_type(key, list, "an array with one array of host CPU numbers a vCPU");
      cpus(key, *list.as_array(), out.emplace_back());
    }
  }

  // Calls `read` with the table under `key` when there is one.
  template <class Read>
  void table(const std::string& key, Read&& read) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (node->as_table() == nullptr) return wrong_type(key, *node, "a table");
    Table inner(context_, *node->as_table(), path_of(key));
    read(inner);
    inner.finish();
  }

  // Calls `read` with each table of the array under `key`.
  template <class Read>
  void tables(const std::string& key, const toml::array& array, Read&& read) {
    for (std::size_t i = 0; i < array.size(); ++i) {
      const toml::table* element = array.get(i)->as_table();
      if (element == nullptr) return wrong_type(key, *array.get(i), "an array of tables");
      Table inner(context_, *element, fmt::format("{}.{}", path_of(key), i));
      read(inner);
      inner.finish();
    }
  }

  [[nodiscard]] bool has(const std::string& key) const { return table_.contains(key); }
  [[nodiscard]] bool is_string(const std::string& key) const { return table_[key].is_string(); }
  [[nodiscard]] Context& context() { return context_; }

  void finish() {
    for (const auto& [key, node] : table_) {
      const std::string name(key.str());
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      const std::string meant = nearest(name, known_);
      const std::string where = path_.empty() ? "" : fmt::format(" in [{}]", path_);
      context_.fail(
          key.source(), path_of(name),
          meant.empty()
              ? fmt::format("unknown key '{}'{}; known here: {}", name, where, joined(known_))
              : fmt::format("unknown key '{}'{}; did you mean '{}'?", name, where, meant));
    }
  }

 private:
  Context& context_;
  const toml::table& table_;
  std::string path_;
  std::vector<std::string> known_;
};

void read_machine(Table& table, MachineConfig& out) {
  table.integer("vcpus", out.vcpus, 1, kMaxVcpus);
  table.size("memory", out.memory);
  table.choice<PageSize>("page_size", out.page_size,
                         {{"4K", PageSize::k4}, {"2M", PageSize::m2}, {"1G", PageSize::g1}});
  table.choice<Prefault>(
      "prefault", out.prefault,
      {{"off", Prefault::off}, {"auto", Prefault::automatic}, {"all", Prefault::all}});
  table.cpu_lists("vcpu_affinity", out.vcpu_affinity);
  table.choice<OnReboot>("on_reboot", out.on_reboot,
                         {{"restart", OnReboot::restart}, {"exit", OnReboot::exit}});
  table.duration("power_button_deadline", out.power_button_deadline);
  table.path("kvm", out.kvm);
  table.string("memory_fd", out.memory_fd);
  if (!out.memory_fd.empty() && !vfio_user::is_given_fd(out.memory_fd))
    table.fail("memory_fd", fmt::format("'machine.memory_fd' is \"{}\"; write \"fd:NUMBER\" or "
                                        "\"fd:NAME\"",
                                        out.memory_fd));

  const std::uint64_t unit = std::max(static_cast<std::uint64_t>(out.page_size), 2 * kMiB);
  if (out.memory < kMinMemory)
    table.fail("memory", fmt::format("'machine.memory' is {}; the least is {}",
                                     format_size(out.memory), format_size(kMinMemory)));
  else if (out.memory % unit != 0)
    table.fail("memory", fmt::format("'machine.memory' is {}; it must be a multiple of {}",
                                     format_size(out.memory), format_size(unit)));
  if (out.vcpu_affinity.size() > out.vcpus)
    table.fail("vcpu_affinity", fmt::format("'machine.vcpu_affinity' names {} vCPUs, but there are "
                                            "{}",
                                            out.vcpu_affinity.size(), out.vcpus));
}

void read_kernel(Table& table, MachineConfig& out) {
  table.path("path", out.kernel);
  table.path("initrd", out.initrd);
  table.string("cmdline", out.command_line);
  table.choice<boot::Entry>("entry", out.entry,
                            {{"auto", boot::Entry::automatic},
                             {"pvh", boot::Entry::pvh},
                             {"bzimage", boot::Entry::bzimage}});
  table.boolean("keep_unpacked", out.keep_unpacked);
}

void read_console(Table& table, ConsoleConfig& out) {
  table.choice<ConsoleType>("type", out.type,
                            {{"stdio", ConsoleType::stdio},
                             {"file", ConsoleType::file},
                             {"pty", ConsoleType::pty},
                             {"socket", ConsoleType::socket},
                             {"none", ConsoleType::none}});
  table.path("path", out.path);
  table.size("limit", out.limit);
  if ((out.type == ConsoleType::file || out.type == ConsoleType::socket) && out.path.empty())
    table.fail("type", "a console of this type needs a 'path'");
}

void read_timeouts(Table& table, vfio_user::Timeouts& out) {
  table.duration("connect", out.connect);
  table.duration("version", out.version);
  table.duration("setup", out.setup);
  table.duration("access", out.access);
  table.duration("dma", out.dma);
  table.duration("reset", out.reset);
}

// Linux gives an NVMe controller up for good when its registers read all ones for 10 s.
constexpr std::chrono::milliseconds kLongestHold{9900};

void read_reconnect(Table& table, ReconnectConfig& out) {
  table.duration("hold", out.hold);
  table.duration("deadline", out.deadline);
  table.duration("first_delay", out.first_delay);
  table.duration("last_delay", out.last_delay);
  table.choice<OnGiveUp>("give_up", out.give_up,
                         {{"detach", OnGiveUp::detach}, {"stop", OnGiveUp::stop}});
  const auto too_long = [&](const std::string& key, std::chrono::milliseconds given,
                            std::chrono::milliseconds most, const std::string& why) {
    if (given > most) {
      table.fail(key, fmt::format("'{}' is {}; it must be at most {}: {}", table.path_of(key),
                                  format_duration(given), format_duration(most), why));
    }
  };
  too_long("hold", out.hold, kLongestHold, "guests take a device that is silent longer for dead");
  too_long("hold", out.hold, out.deadline, "that is the 'deadline'");
  too_long("first_delay", out.first_delay, out.last_delay, "that is the 'last_delay'");
}

// A number, "self", "any", or a user's name.
void read_server_user(Table& table, ServerUser& out) {
  static const std::string kKey = "server_uid";
  std::string text;
  if (table.is_string(kKey)) {
    table.string(kKey, text);
  } else {
    std::optional<std::uint32_t> uid;
    table.integer(kKey, uid, 0, 0xffff'fffe);
    if (!uid) return;
    text = std::to_string(*uid);
  }
  if (const auto user = parse_server_user(text)) {
    out = *user;
  } else {
    table.fail(kKey,
               fmt::format("'{}' is \"{}\", which is no user of /etc/passwd; write a user id, a "
                           "name, \"self\" or \"any\"",
                           table.path_of(kKey), text));
  }
}

// "all", "read-only", "none", or ranges.
void read_dma(Table& table, const MachineConfig& machine, std::vector<DmaRange>& out) {
  static const std::string kKey = "dma";
  if (table.is_string(kKey)) {
    return table.choice<std::vector<DmaRange>>(
        kKey, out,
        {{"all", {{}}}, {"read-only", {{.access = DmaAccess::read_only}}}, {"none", {}}});
  }
  const toml::node* node = table.find(kKey);
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  if (array == nullptr)
    return table.wrong_type(kKey, *node, "\"all\", \"read-only\", \"none\", or an array of ranges");
  const std::size_t before = table.context().errors.size();
  out.clear();
  table.tables(kKey, *array, [&](Table& inner) {
    DmaRange range{.base = 0, .size = 0};
    for (const char* key : {"base", "size"}) {
      if (!inner.has(key))
        inner.fail(key, fmt::format("a range of '{}' needs a '{}'", table.path_of(kKey), key));
    }
    inner.address("base", range.base);
    inner.size("size", range.size);
    inner.choice<DmaAccess>(
        "access", range.access,
        {{"read-only", DmaAccess::read_only}, {"read-write", DmaAccess::read_write}});
    out.push_back(range);
  });
  if (table.context().errors.size() != before) return;
  const auto fault = dma_fault(out, arch::ram_windows(machine.memory), dma_unit(machine.page_size));
  if (fault) table.fail(kKey, fmt::format("'{}': {}", table.path_of(kKey), *fault));
}

constexpr std::array<std::string_view, 9> kRegionNames = {"bar0", "bar1", "bar2",   "bar3", "bar4",
                                                          "bar5", "rom",  "config", "vga"};

void read_device(Table& table, const MachineConfig& machine, DeviceConfig& out) {
  table.string("name", out.name);
  table.path("socket", out.socket);
  table.strings("server", out.server);
  read_server_user(table, out.server_user);
  table.cpus("affinity", out.server_affinity);
  table.table("timeouts", [&](Table& inner) { read_timeouts(inner, out.timeouts); });
  table.boolean("poll_replies", out.poll_replies);
  table.boolean("posted_writes", out.posted_writes);
  read_dma(table, machine, out.dma);
  table.choice<OnDisconnect>("on_disconnect", out.on_disconnect,
                             {{"stop", OnDisconnect::stop},
                              {"detach", OnDisconnect::detach},
                              {"reconnect", OnDisconnect::reconnect}});
  table.table("reconnect", [&](Table& inner) { read_reconnect(inner, out.reconnect); });
  if (table.has("reconnect") && out.on_disconnect != OnDisconnect::reconnect)
    table.fail("reconnect", fmt::format("'{}' is of no effect without on_disconnect = "
                                        "\"reconnect\"",
                                        table.path_of("reconnect")));
  table.choice<OnSignal>("on_error", out.on_error,
                         {{"log", OnSignal::log}, {"stop", OnSignal::stop}});
  table.choice<OnSignal>("on_request", out.on_request,
                         {{"log", OnSignal::log}, {"stop", OnSignal::stop}});
  table.integer("max_vectors", out.max_vectors, 0, 2048);
  table.table("map", [&](Table& inner) {
    for (std::uint32_t region = 0; region < 6; ++region) {
      const std::string key(kRegionNames[region]);
      const bool given = inner.has(key);
      bool allowed = true;
      inner.boolean(key, allowed);
      if (given) out.map[region] = allowed;
    }
  });
  table.integer("vendor_id", out.vendor_id, 0, 0xffff);
  table.integer("device_id", out.device_id, 0, 0xffff);
  table.integer("subsystem_vendor_id", out.subsystem_vendor_id, 0, 0xffff);
  table.integer("subsystem_id", out.subsystem_id, 0, 0xffff);
  table.integer("class_code", out.class_code, 0, 0xffffff);

  if (out.socket.empty() == out.server.empty())
    table.fail(table.has("server") ? "server" : "socket",
               fmt::format("device '{}' needs either 'socket' (a server that runs already) or "
                           "'server' (a command to start)",
                           out.name));
  if (!out.server.empty() && out.server_user.kind == ServerUser::Kind::any)
    table.fail("server_uid",
               fmt::format("a server that outboard starts is always checked; leave "
                           "'server_uid' of device '{}' out, or name the user that it "
                           "changes to",
                           out.name));
  if (is_connected_socket(out) && out.on_disconnect == OnDisconnect::reconnect)
    table.fail("on_disconnect",
               fmt::format("device '{}' is given as a connected socket, which cannot be connected "
                           "again; pass its directory, socket = \"fd:DIRECTORY/NAME.sock\", or "
                           "choose on_disconnect = \"stop\" or \"detach\"",
                           out.name));
  constexpr std::size_t kLongestSocketPath = 107;  // sun_path of unix(7), less its NUL
  if (!vfio_user::is_given_fd(out.socket) && out.socket.size() > kLongestSocketPath)
    table.fail("socket", fmt::format("the socket path of device '{}' has {} bytes; the system "
                                     "takes {} at most: use a shorter folder",
                                     out.name, out.socket.size(), kLongestSocketPath));
}

constexpr std::size_t kMaxDevices = 31;  // slots 1 to 31 of the one bus

void read_devices(Table& root, MachineConfig& out) {
  const toml::node* node = root.find("device");
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  if (array == nullptr) return root.fail("device", "write each device under a [[device]] heading");
  if (array->size() > kMaxDevices)
    return root.fail("device", fmt::format("there are {} devices; the bus has {} slots",
                                           array->size(), kMaxDevices));
  std::set<std::string> names;
  for (std::size_t i = 0; i < array->size(); ++i) {
    const toml::table* inner = array->get(i)->as_table();
    if (inner == nullptr) {
      root.fail("device", "write each device under a [[device]] heading");
      continue;
    }
    DeviceConfig device;
    device.name = fmt::format("device{}", i);
    Table table(root.context(), *inner, fmt::format("device.{}", i));
    read_device(table, out, device);
    table.finish();
    if (!names.insert(device.name).second)
      table.fail("name", fmt::format("two devices are named '{}'", device.name));
    out.devices.push_back(std::move(device));
  }
}

// The value of an override: TOML if it is that, else the bare text.
void assign(toml::table& table, const std::string& key, const Override& change) {
  if (!change.literal_string) {
    toml::parse_result parsed = toml::parse(fmt::format("v = {}", change.value));
    if (parsed && parsed.table().size() == 1) {
      table.insert_or_assign(key, std::move(*parsed.table().get("v")));
      return;
    }
  }
  table.insert_or_assign(key, change.value);
}

// The table that `path` leads to (all but its last word); made where it is missing.
toml::table* descend(toml::table& root, std::vector<std::string>& words, Errors& errors,
                     const std::string& path) {
  toml::table* table = &root;
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    toml::node* node = table->get(words[i]);
    if (node == nullptr) {
      if (words[i] == "device") {
        errors.push_back(fmt::format("--set {}: the configuration has no [[device]]", path));
        return nullptr;
      }
      node = &table->insert(words[i], toml::table{}).first->second;
    }
    if (toml::array* array = node->as_array(); array != nullptr && i + 2 < words.size() + 0) {
      const std::string& which = words[i + 1];
      std::size_t index = array->size();
      for (std::size_t k = 0; k < array->size(); ++k) {
        const toml::table* element = array->get(k)->as_table();
        if (element == nullptr) continue;
        const auto name = (*element)["name"].value<std::string>();
        if (which == std::to_string(k) || (name && *name == which)) index = k;
      }
      if (index == array->size()) {
        errors.push_back(
            fmt::format("--set {}: there is no {} '{}'; name one or give its position "
                        "from 0",
                        path, words[i], which));
        return nullptr;
      }
      words[i + 1] = std::to_string(index);
      table = array->get(index)->as_table();
      ++i;
      continue;
    }
    table = node->as_table();
    if (table == nullptr) {
      errors.push_back(fmt::format("--set {}: '{}' is no table", path, words[i]));
      return nullptr;
    }
  }
  return table;
}

void apply(toml::table& root, const std::vector<Override>& overrides, Context& context) {
  for (const Override& change : overrides) {
    std::vector<std::string> words;
    std::istringstream stream(change.path);
    for (std::string word; std::getline(stream, word, '.');) words.push_back(word);
    if (words.size() < 2 ||
        std::any_of(words.begin(), words.end(), [](auto& w) { return w.empty(); })) {
      context.errors.push_back(fmt::format(
          "--set {}: write a dotted path, such as machine.vcpus or device.0.socket", change.path));
      continue;
    }
    toml::table* table = descend(root, words, context.errors, change.path);
    if (table == nullptr) continue;
    assign(*table, words.back(), change);
    std::string resolved;
    for (const auto& word : words) resolved += (resolved.empty() ? "" : ".") + word;
    context.overridden.insert(resolved);
  }
}

}  // namespace

tl::expected<MachineConfig, ConfigErrors> parse_config(const std::string& text,
                                                       const std::string& name,
                                                       const std::string& folder,
                                                       const std::vector<Override>& overrides) {
  toml::parse_result parsed = toml::parse(text, name);
  if (!parsed) {
    const toml::source_position at = parsed.error().source().begin;
    return tl::unexpected(ConfigErrors{
        {fmt::format("{}:{}:{}: {}", name, at.line, at.column, parsed.error().description())}});
  }
  Context context{name, folder, {}, {}};
  toml::table root = std::move(parsed).table();
  apply(root, overrides, context);

  MachineConfig config;
  Table table(context, root, "");
  table.table("machine", [&](Table& inner) { read_machine(inner, config); });
  table.table("kernel", [&](Table& inner) { read_kernel(inner, config); });
  table.table("console", [&](Table& inner) { read_console(inner, config.console); });
  read_devices(table, config);
  table.finish();
  if (config.kernel.empty() && context.errors.empty())
    context.errors.push_back(fmt::format(
        "{}: no kernel is named; add 'path' under [kernel], or give --kernel PATH", name));
  if (!context.errors.empty()) return tl::unexpected(ConfigErrors{std::move(context.errors)});
  return config;
}

tl::expected<MachineConfig, ConfigErrors> load_config(const std::string& path,
                                                      const std::vector<Override>& overrides) {
  std::ostringstream text;
  if (path == "-") {
    text << std::cin.rdbuf();
    return parse_config(text.str(), "standard input", fs::current_path().string(), overrides);
  }
  std::error_code code;
  if (fs::is_directory(path, code))
    return tl::unexpected(ConfigErrors{{path + ": is a directory; name the TOML file in it"}});
  std::ifstream file(path);
  if (!file)
    return tl::unexpected(
        ConfigErrors{{fmt::format("{}: {}; name an existing TOML file "
                                  "(examples are in configs/)",
                                  path, std::strerror(errno))}});
  text << file.rdbuf();
  return parse_config(text.str(), path, fs::absolute(path).parent_path().string(), overrides);
}

std::string schema() {
  return R"(# Every key of an outboard configuration, with its default.

[machine]
vcpus = 1                        # 1 to 64
memory = "512M"                  # 64M or more, a multiple of 2M (of 1G with page_size = "1G")
page_size = "4K"                 # "4K", "2M" or "1G"; the larger two need huge pages on the host
prefault = "auto"                # "off", "auto" (huge pages only) or "all"
# vcpu_affinity = [[0], [1]]     # host CPUs of each vCPU
on_reboot = "restart"            # "restart" in place, or "exit" (status 0)
power_button_deadline = "60s"    # after the power button, the guest is stopped at this deadline
kvm = "/dev/kvm"                 # or a descriptor that outboard is started with: "fd:5", "fd:NAME"
# memory_fd = "fd:6"             # guest memory: a memfd of `memory` bytes that outboard is started with

[kernel]
path = "vmlinuz"                 # required: vmlinux (ELF with a PVH note) or bzImage; arm64: Image
# initrd = "initrd.img"          # both may be descriptors: "fd:3"
cmdline = ""                     # the guest's command line; nothing is added to it
entry = "auto"                   # "auto" (PVH where possible), "pvh", or "bzimage" (64-bit protocol)
keep_unpacked = true             # keep what a packed kernel unpacks to in ~/.cache/outboard/kernels

[console]
type = "stdio"                   # "stdio", "file", "pty", "socket" or "none"
# path = "console.log"           # file and socket: required; pty: a link to make (optional)
limit = "16M"                    # file: bytes kept

[[device]]                       # any number up to 31, in slot order from 00:01.0
name = "disk0"                   # default: device0, device1, ...
socket = "/run/disk0.sock"       # the vfio-user socket of a server that runs already; or "fd:7", connected, or
#                                # "fd:8/disk0.sock", in a directory that is open as descriptor 8
# server = ["outboard-nvme", "--file", "root.img"]   # or: a server to start; {socket} is replaced
server_uid = "self"              # who may be behind the socket: outboard's user or root; or a user id, a name, "any"
# affinity = [1]                 # host CPUs of a started server
# timeouts = { connect = "5s", version = "5s", setup = "5s", access = "5s", dma = "5s", reset = "5s" }
poll_replies = true              # a vCPU looks for the reply for 200 us before it sleeps, where that helps
posted_writes = true             # allow writes without a reply where the order permits them
dma = "all"                      # guest memory that the server may use: "all", "read-only", "none", or ranges:
# dma = [{ base = "0x4000000", size = "64M", access = "read-only" }]   # multiples of 2M; else "read-write"
on_disconnect = "stop"           # "stop" the machine (status 8), "detach" (reads give all ones), "reconnect"
# reconnect = { hold = "8s", deadline = "60s", first_delay = "10ms", last_delay = "1s", give_up = "detach" }
#                                # accesses wait for `hold` (9900ms at most), then give all ones; after `deadline`
#                                # the device is given up: "detach" or "stop"
on_error = "log"                 # when the server signals an error (ERR): "log", or "stop" (status 8)
on_request = "log"               # when the server asks for the device's removal (REQ): the same
# max_vectors = 16               # MSI-X vectors shown to the guest at most
# map = { bar0 = false }         # do not map a BAR's shared pages; trap every access
# vendor_id = 0x1b36             # also device_id, subsystem_vendor_id, subsystem_id, class_code
)";
}

}  // namespace outboard::vmm
