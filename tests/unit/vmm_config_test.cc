#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "vmm/config.h"

namespace outboard::vmm {
namespace {

tl::expected<MachineConfig, ConfigErrors> parse(const std::string& text,
                                                const std::vector<Override>& overrides = {}) {
  return parse_config(text, "m.toml", "/etc/vm", overrides);
}

const std::string kMinimal = "[kernel]\npath = \"vmlinuz\"\n";

// The one line of complaint about `text`; several, or none, fail the test.
std::string complaint(const std::string& text, const std::vector<Override>& overrides = {}) {
  const auto config = parse(text, overrides);
  if (config) return "(accepted)";
  std::string all;
  for (const auto& line : config.error().lines) all += line + "\n";
  if (!all.empty()) all.pop_back();
  return all;
}

}  // namespace

TEST_CASE("a configuration with nothing but a kernel gets the documented defaults") {
  const auto config = parse(kMinimal);
  REQUIRE(config);
  CHECK(config->vcpus == 1);
  CHECK(config->memory == 512 * kMiB);
  CHECK(config->page_size == PageSize::k4);
  CHECK(config->prefault == Prefault::automatic);
  CHECK(config->kernel == "/etc/vm/vmlinuz");
  CHECK(config->console.type == ConsoleType::stdio);
  CHECK(config->on_reboot == OnReboot::restart);
  CHECK(config->power_button_deadline == std::chrono::seconds(60));
  CHECK(config->devices.empty());
}

TEST_CASE("every documented key is read") {
  const auto config = parse(R"(
[machine]
vcpus = 4
memory = "6G"
page_size = "2M"
prefault = "all"
vcpu_affinity = [[0], [1, 2]]
on_reboot = "exit"
power_button_deadline = "10s"
[kernel]
path = "/boot/vmlinuz"
initrd = "initrd.img"
cmdline = "console=ttyS0 root=/dev/nvme0n1"
entry = "bzimage"
keep_unpacked = false
[console]
type = "file"
path = "../console.log"
limit = "1M"
[[device]]
name = "disk0"
socket = "/run/disk0.sock"
timeouts = { access = "250ms", reset = "1m" }
poll_replies = false
posted_writes = false
dma = [{ base = "0x44000000", size = "64M", access = "read-only" }, { base = 0x100000000, size = "2M" }]
max_vectors = 16
map = { bar0 = false }
vendor_id = 0x1b36
class_code = 0x010802
on_disconnect = "reconnect"
reconnect = { hold = "5s", deadline = "2m", first_delay = "20ms", last_delay = "2s", give_up = "stop" }
on_error = "stop"
on_request = "stop"
[[device]]
server = ["outboard-nvme", "--memory", "64M"]
affinity = [1]
dma = "none"
)");
  REQUIRE(config);
  CHECK(config->vcpus == 4);
  CHECK(config->memory == 6 * kGiB);
  CHECK(config->page_size == PageSize::m2);
  CHECK(config->prefault == Prefault::all);
  CHECK(config->vcpu_affinity == std::vector<std::vector<int>>{{0}, {1, 2}});
  CHECK(config->on_reboot == OnReboot::exit);
  CHECK(config->power_button_deadline == std::chrono::seconds(10));
  CHECK(config->kernel == "/boot/vmlinuz");
  CHECK(config->initrd == "/etc/vm/initrd.img");
  CHECK(config->entry == boot::Entry::bzimage);
  CHECK_FALSE(config->keep_unpacked);
  CHECK(config->console.path == "/etc/console.log");
  CHECK(config->console.limit == kMiB);
  REQUIRE(config->devices.size() == 2);
  const DeviceConfig& disk = config->devices[0];
  CHECK(disk.name == "disk0");
  CHECK(disk.socket == "/run/disk0.sock");
  CHECK(disk.timeouts.access == std::chrono::milliseconds(250));
  CHECK(disk.timeouts.reset == std::chrono::minutes(1));
  CHECK(disk.timeouts.version == std::chrono::seconds(5));
  CHECK_FALSE(disk.poll_replies);
  CHECK_FALSE(disk.posted_writes);
  CHECK(disk.dma == std::vector<DmaRange>{{1088 * kMiB, 64 * kMiB, DmaAccess::read_only},
                                          {4 * kGiB, 2 * kMiB, DmaAccess::read_write}});
  CHECK(config->devices[1].dma.empty());
  CHECK(disk.max_vectors == 16);
  CHECK(disk.map.at(0) == false);
  CHECK(disk.vendor_id == 0x1b36);
  CHECK(disk.class_code == 0x010802);
  CHECK(disk.on_disconnect == OnDisconnect::reconnect);
  CHECK(disk.reconnect.hold == std::chrono::seconds(5));
  CHECK(disk.reconnect.deadline == std::chrono::minutes(2));
  CHECK(disk.reconnect.first_delay == std::chrono::milliseconds(20));
  CHECK(disk.reconnect.last_delay == std::chrono::seconds(2));
  CHECK(disk.reconnect.give_up == OnGiveUp::stop);
  CHECK(config->devices[1].on_disconnect == OnDisconnect::stop);
  CHECK(disk.on_error == OnSignal::stop);
  CHECK(disk.on_request == OnSignal::stop);
  CHECK(config->devices[1].poll_replies);
  CHECK(config->devices[1].on_error == OnSignal::log);
  CHECK(config->devices[1].on_request == OnSignal::log);
  CHECK(config->devices[1].name == "device1");
  CHECK(config->devices[1].server == std::vector<std::string>{"outboard-nvme", "--memory", "64M"});
  CHECK(config->devices[1].server_affinity == std::vector<int>{1});
}

TEST_CASE(
    "a hold stays below the 10 s after which guests give a device up, and its table has a use") {
  const auto with = [](const std::string& keys) {
    return complaint(kMinimal + "[[device]]\nsocket = \"s\"\n" + keys);
  };
  CHECK(with("on_disconnect = \"reconnect\"\nreconnect = { hold = \"9900ms\" }\n") == "(accepted)");
  CHECK(with("on_disconnect = \"reconnect\"\nreconnect.hold = \"10s\"\n")
            .find("'device.0.reconnect.hold' is 10s; it must be at most 9900ms") !=
        std::string::npos);
  CHECK(with("on_disconnect = \"reconnect\"\nreconnect = { deadline = \"5s\" }\n")
            .find("that is the 'deadline'") != std::string::npos);
  CHECK(with("reconnect = { hold = \"1s\" }\n").find("is of no effect without on_disconnect") !=
        std::string::npos);
}

TEST_CASE("device.dma: a word or ranges of memory; what cannot be had is refused with its place") {
  const auto with = [](const std::string& value, const std::string& more = {}) {
    return complaint(more + kMinimal + "[[device]]\nname = \"d\"\nsocket = \"s\"\ndma = " + value +
                     "\n");
  };
  const auto dma_of = [](const std::string& value) {
    return parse(kMinimal + "[[device]]\nsocket = \"s\"\ndma = " + value + "\n")->devices[0].dma;
  };
  CHECK(dma_of("\"all\"") == std::vector<DmaRange>{{}});
  CHECK(dma_of("\"read-only\"") == std::vector<DmaRange>{{0, ~0ULL, DmaAccess::read_only}});
  CHECK(dma_of("\"none\"").empty());
  CHECK(dma_of("[]").empty());
  CHECK(
      with("\"some\"") ==
      "m.toml:6:7: 'device.0.dma' is \"some\"; it must be one of \"all\", \"read-only\", \"none\"");
  CHECK(with("true") ==
        "m.toml:6:7: 'device.0.dma' must be \"all\", \"read-only\", \"none\", or an array of "
        "ranges, not true or false");
  CHECK(with("[\"all\"]").find("must be an array of tables, not a string") != std::string::npos);
  CHECK(with("[{ size = \"2M\" }]") == "m.toml:6:8: a range of 'device.0.dma' needs a 'base'");
  CHECK(
      with("[{ base = -1, size = \"2M\" }]") ==
      "m.toml:6:17: 'device.0.dma.0.base' is no address; write it like \"0x100000000\" or \"4G\"");
  CHECK(with("[{ base = 0, size = \"2M\", acces = \"read-only\" }]")
            .find("unknown key 'acces' in [device.0.dma.0]; did you mean 'access'?") !=
        std::string::npos);
  CHECK(with("[{ base = 0, size = \"2M\", access = \"write\" }]")
            .find("it must be one of \"read-only\", \"read-write\"") != std::string::npos);
  CHECK(with("[{ base = \"0x100000\", size = \"64M\" }]") ==
        "m.toml:6:7: 'device.0.dma': the range 0x100000 +0x4000000 must begin and end at multiples "
        "of 2M: servers map whole huge pages");
  CHECK(with("[{ base = 0, size = \"2M\" }]", "[machine]\nmemory = \"2G\"\npage_size = \"1G\"\n")
            .find("multiples of 1G") != std::string::npos);
  CHECK(with("[{ base = \"512M\", size = \"2M\" }]").find("is not all guest memory") !=
        std::string::npos);
}

TEST_CASE("an unknown key is refused with its place and the nearest right name") {
  CHECK(complaint("[machine]\nmemmory = \"1G\"\n" + kMinimal) ==
        "m.toml:2:1: unknown key 'memmory' in [machine]; did you mean 'memory'?");
  CHECK(complaint("[kernel]\npath = \"k\"\n\n[[devise]]\nsocket = \"s\"\n") ==
        "m.toml:4:3: unknown key 'devise'; did you mean 'device'?");
  CHECK(complaint("[kernel]\npath = \"k\"\nzzzzzz = 1\n") ==
        "m.toml:3:1: unknown key 'zzzzzz' in [kernel]; known here: path, initrd, cmdline, entry, "
        "keep_unpacked");
}

TEST_CASE("a value of the wrong type is refused with its place and the right type") {
  CHECK(complaint("[machine]\nvcpus = \"four\"\n" + kMinimal) ==
        "m.toml:2:9: 'machine.vcpus' must be an integer, not a string");
  CHECK(complaint("[machine]\nvcpus = 65\n" + kMinimal) ==
        "m.toml:2:9: 'machine.vcpus' is 65; it must be 1 to 64");
  CHECK(complaint("[machine]\nmemory = \"1.5G\"\n" + kMinimal) ==
        "m.toml:2:10: 'machine.memory' is \"1.5G\", which is no size; write it like \"512M\" or "
        "\"4G\"");
  CHECK(complaint("[machine]\nmemory = \"32M\"\n" + kMinimal) ==
        "m.toml:2:10: 'machine.memory' is 32M; the least is 64M");
  CHECK(complaint("[machine]\nmemory = \"65M\"\n" + kMinimal) ==
        "m.toml:2:10: 'machine.memory' is 65M; it must be a multiple of 2M");
  CHECK(complaint("[console]\ntype = \"vga\"\n" + kMinimal) ==
        "m.toml:2:8: 'console.type' is \"vga\"; it must be one of \"stdio\", \"file\", \"pty\", "
        "\"socket\", \"none\"");
  CHECK(complaint("machine = 3\n" + kMinimal) ==
        "m.toml:1:11: 'machine' must be a table, not an integer");
}

TEST_CASE("all faults of a file are told at once, in the order of the file's tables") {
  const auto config = parse("[machine]\nvcpus = 0\nmemory = true\n[kernel]\npath = 1\n");
  REQUIRE_FALSE(config);
  CHECK(config.error().lines.size() == 3);
}

TEST_CASE("a file that is no TOML is refused with the place of the fault") {
  const std::string line = complaint("[machine\nvcpus = 1\n");
  CHECK(line.starts_with("m.toml:1:"));
}

TEST_CASE("a mistyped table header is a fault with its place, not the end of the process") {
  CHECK(complaint(kMinimal + "[)machine]\n").starts_with("m.toml:3:"));
  CHECK(complaint(kMinimal + "[[=]]\n").starts_with("m.toml:3:"));
  CHECK(complaint(kMinimal + "\u00e9 = 1\n").starts_with("m.toml:3:"));
  CHECK(complaint(kMinimal + "cmdline = \u00e9\n").starts_with("m.toml:3:"));
}

TEST_CASE("a device needs exactly one of socket and server") {
  const std::string head = kMinimal + "[[device]]\nname = \"d\"\n";
  CHECK(complaint(head).find("needs either 'socket'") != std::string::npos);
  CHECK(complaint(head + "socket = \"s\"\nserver = [\"x\"]\n").find("needs either 'socket'") !=
        std::string::npos);
}

TEST_CASE("a socket path over 107 bytes is refused before anything is started") {
  const std::string path = "/" + std::string(107, 'a');
  CHECK(complaint(kMinimal + "[[device]]\nsocket = \"" + path + "\"\n").find("has 108 bytes") !=
        std::string::npos);
  CHECK(parse(kMinimal + "[[device]]\nsocket = \"" + path.substr(0, 107) + "\"\n"));
}

TEST_CASE("two devices of one name are refused") {
  CHECK(complaint(kMinimal + "[[device]]\nname = \"a\"\nsocket = \"s\"\n[[device]]\nname = "
                             "\"a\"\nsocket = \"t\"\n")
            .find("two devices are named 'a'") != std::string::npos);
}

TEST_CASE("a configuration without a kernel says how to name one") {
  CHECK(complaint("[machine]\nvcpus = 1\n") ==
        "m.toml: no kernel is named; add 'path' under [kernel], or give --kernel PATH");
}

TEST_CASE(
    "an override replaces a key, makes a missing table, and finds a device by name or place") {
  const std::string text =
      kMinimal + "[[device]]\nname = \"disk0\"\nsocket = \"/a\"\n[[device]]\nsocket = \"/b\"\n";
  const auto config = parse(text, {{"machine.vcpus", "4"},
                                   {"machine.memory", "1G"},
                                   {"device.disk0.socket", "/c"},
                                   {"device.1.socket", "\"/d\""},
                                   {"kernel.path", "/k", true}});
  REQUIRE(config);
  CHECK(config->vcpus == 4);
  CHECK(config->memory == kGiB);
  CHECK(config->devices[0].socket == "/c");
  CHECK(config->devices[1].socket == "/d");
  CHECK(config->kernel == "/k");
}

TEST_CASE("a fault in an override names the override, not a place in the file") {
  CHECK(complaint(kMinimal, {{"machine.vcpus", "99"}}) ==
        "--set machine.vcpus: 'machine.vcpus' is 99; it must be 1 to 64");
  CHECK(complaint(kMinimal, {{"machine.vcpu", "2"}}) ==
        "--set machine.vcpu: unknown key 'vcpu' in [machine]; did you mean 'vcpus'?");
  CHECK(complaint(kMinimal, {{"device.disk9.socket", "x"}}) ==
        "--set device.disk9.socket: the configuration has no [[device]]");
  CHECK(complaint(kMinimal, {{"vcpus", "2"}}) ==
        "--set vcpus: write a dotted path, such as machine.vcpus or device.0.socket");
}

TEST_CASE("the printed schema is itself a valid configuration with the default values") {
  const auto config = parse(schema());
  REQUIRE(config);
  const MachineConfig defaults;
  CHECK(config->vcpus == defaults.vcpus);
  CHECK(config->memory == defaults.memory);
  CHECK(config->prefault == defaults.prefault);
  CHECK(config->power_button_deadline == defaults.power_button_deadline);
  CHECK(config->console.limit == defaults.console.limit);
  CHECK(config->devices[0].posted_writes == DeviceConfig{}.posted_writes);
  CHECK(config->devices[0].dma == DeviceConfig{}.dma);
}

TEST_CASE("a missing file, and a folder, are one clear line") {
  const auto missing = load_config("/nonexistent/x.toml", {});
  REQUIRE_FALSE(missing);
  CHECK(missing.error().lines[0].starts_with("/nonexistent/x.toml: No such file or directory"));
  const auto folder = load_config("/", {});
  REQUIRE_FALSE(folder);
  CHECK(folder.error().lines[0].find("is a directory") != std::string::npos);
}

}  // namespace outboard::vmm
