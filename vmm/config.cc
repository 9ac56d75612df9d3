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

#include "vfio_user/given_fds.h"
#include "vmm/arch.h"
#include "vmm/config_overrides.h"
#include "vmm/dma_plan.h"
#include "vmm/given_files.h"
#include "vmm/server_user.h"
#include "vmm/toml_table.h"
#include "vmm/units.h"

namespace outboard::vmm {
namespace {

namespace fs = std::filesystem;

void read_machine(TomlTable& table, MachineConfig& out) {
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

void read_kernel(TomlTable& table, MachineConfig& out) {
  table.path("path", out.kernel);
  table.path("initrd", out.initrd);
  table.string("cmdline", out.command_line);
  table.choice<boot::Entry>("entry", out.entry,
                            {{"auto", boot::Entry::automatic},
                             {"pvh", boot::Entry::pvh},
                             {"bzimage", boot::Entry::bzimage}});
  table.boolean("keep_unpacked", out.keep_unpacked);
}

void read_console(TomlTable& table, ConsoleConfig& out) {
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

void read_timeouts(TomlTable& table, vfio_user::Timeouts& out) {
  table.duration("connect", out.connect);
  table.duration("version", out.version);
  table.duration("setup", out.setup);
  table.duration("access", out.access);
  table.duration("dma", out.dma);
  table.duration("reset", out.reset);
}

// Linux gives an NVMe controller up for good when its registers read all ones for 10 s.
constexpr std::chrono::milliseconds kLongestHold{9900};

void read_reconnect(TomlTable& table, ReconnectConfig& out) {
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
void read_server_user(TomlTable& table, ServerUser& out) {
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
void read_dma(TomlTable& table, const MachineConfig& machine, std::vector<DmaRange>& out) {
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
  table.tables(kKey, *array, [&](TomlTable& inner) {
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

void read_device(TomlTable& table, const MachineConfig& machine, DeviceConfig& out) {
  table.string("name", out.name);
  table.path("socket", out.socket);
  table.strings("server", out.server);
  read_server_user(table, out.server_user);
  table.cpus("affinity", out.server_affinity);
  table.table("timeouts", [&](TomlTable& inner) { read_timeouts(inner, out.timeouts); });
  table.boolean("poll_replies", out.poll_replies);
  table.boolean("posted_writes", out.posted_writes);
  read_dma(table, machine, out.dma);
  table.choice<OnDisconnect>("on_disconnect", out.on_disconnect,
                             {{"stop", OnDisconnect::stop},
                              {"detach", OnDisconnect::detach},
                              {"reconnect", OnDisconnect::reconnect}});
  table.table("reconnect", [&](TomlTable& inner) { read_reconnect(inner, out.reconnect); });
  if (table.has("reconnect") && out.on_disconnect != OnDisconnect::reconnect)
    table.fail("reconnect", fmt::format("'{}' is of no effect without on_disconnect = "
                                        "\"reconnect\"",
                                        table.path_of("reconnect")));
  table.choice<OnSignal>("on_error", out.on_error,
                         {{"log", OnSignal::log}, {"stop", OnSignal::stop}});
  table.choice<OnSignal>("on_request", out.on_request,
                         {{"log", OnSignal::log}, {"stop", OnSignal::stop}});
  table.integer("max_vectors", out.max_vectors, 0, 2048);
  table.table("map", [&](TomlTable& inner) {
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

void read_devices(TomlTable& root, MachineConfig& out) {
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
    TomlTable table(root.context(), *inner, fmt::format("device.{}", i));
    read_device(table, out, device);
    table.finish();
    if (!names.insert(device.name).second)
      table.fail("name", fmt::format("two devices are named '{}'", device.name));
    out.devices.push_back(std::move(device));
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
  TomlContext context{name, folder, {}, {}};
  toml::table root = std::move(parsed).table();
  apply_overrides(root, overrides, context);

  MachineConfig config;
  TomlTable table(context, root, "");
  table.table("machine", [&](TomlTable& inner) { read_machine(inner, config); });
  table.table("kernel", [&](TomlTable& inner) { read_kernel(inner, config); });
  table.table("console", [&](TomlTable& inner) { read_console(inner, config.console); });
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

}  // namespace outboard::vmm
