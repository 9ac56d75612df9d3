#include "tools/nvme/options.h"

#include <charconv>
#include <iostream>

#include <CLI/CLI.hpp>

#include "vfio_user/given_fds.h"

namespace outboard::nvme {
namespace {

constexpr const char* kDescription =
    "An NVMe controller as a vfio-user server: a virtual machine monitor attaches to its socket\n"
    "and gives the guest an NVMe disk. Serves one guest at a time, until SIGTERM or SIGINT.";

constexpr const char* kFooter = R"(Examples:
  A disk for outboard, with its root file system on it:
      outboard-nvme --socket /run/disk0.sock --file root.img
      (in the TOML:  [[device]]  name = "disk0"  socket = "/run/disk0.sock")
  Started by outboard itself, which adds --socket:
      [[device]]  name = "disk0"  server = ["outboard-nvme", "--file", "root.img"]
  Restarted by systemd without the guest noticing (RuntimeDirectoryPreserve=restart):
      outboard-nvme --socket %t/disk0/sock --file root.img --state %t/disk0/state
  Two namespaces, the second of 4096-byte blocks and read-only:
      outboard-nvme --socket s --file root.img --namespace file=data.img,block=4096,readonly
  A scratch disk in memory, and one that measures the path without media:
      outboard-nvme --socket s --memory 2G
      outboard-nvme --socket s --null 1T --stats

Sizes are bytes, or take K, M, G or T for powers of 1024. Namespaces are numbered from 1: first
every --file, then --memory, --null and --namespace.

Doorbells: 'shadow' lets the guest's driver keep them in its memory (NVMe's doorbell buffer; Linux
does): a busy server reads them there, a sleeping one is woken by an eventfd or, where the monitor
knows none, by a message. Drivers without it send messages. 'page' maps the doorbell page into the
guest: a doorbell is a store without an exit, found by looking; an idle server looks every 2 ms.
'trap' makes each doorbell a message.

With --state a server that is killed, or ended while its guest runs, leaves the guest's queues and
commands in FILE, and the next one with the same command line goes on with them: the guest sees a
pause. Namespaces in memory cannot: they end with the process.

An image is locked while it is served; a second server on it is refused. 'Format NVM' by the guest
changes the block size until the server ends; after that it is again what this line says.

fd:N is a descriptor that the program is started with, fd:NAME one that systemd passes under that
name (FileDescriptorName=, OpenFile=).

Exit status: 0 ended in order; 1 the listening socket broke; 2 wrong command line; 3 an image is
missing, unusable or in use; 4 the socket cannot be made; 5 ended, but the last flush failed; 6 the
state file cannot be made, is in use, or is of another disk; 7 a system call that the sandbox
forbids.)";

bool parse_size(const std::string& text, u64& bytes) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, bytes);
  if (error != std::errc{} || rest == text.data()) return false;
  std::string unit(rest, end);
  if (unit.size() == 3 && unit.substr(1) == "iB") unit.resize(1);
  if (unit.empty()) return bytes != 0;
  static constexpr std::string_view kUnits = "KMGT";
  const auto at = kUnits.find(static_cast<char>(std::toupper(unit[0])));
  if (unit.size() != 1 || at == std::string_view::npos) return false;
  const unsigned shift = 10 * (static_cast<unsigned>(at) + 1);
  if (bytes == 0 || bytes > (~u64{0} >> 1) >> shift) return false;
  bytes <<= shift;
  return true;
}

NamespaceOptions sized(NamespaceOptions::Kind kind, const std::string& text, const char* option) {
  NamespaceOptions ns;
  ns.kind = kind;
  if (!parse_size(text, ns.size)) {
    throw CLI::ValidationError(option, "'" + text + "' is no size; write for example 512M or 2G");
  }
  return ns;
}

u32 parse_block(const std::string& text) {
  if (text == "512") return 512;
  if (text == "4096") return 4096;
  throw CLI::ValidationError("block", "'" + text + "' is no block size; it is 512 or 4096");
}

// file=PATH|memory=SIZE|null=SIZE[,block=512|4096][,readonly]
NamespaceOptions parse_namespace(const std::string& text, const NamespaceOptions& defaults) {
  NamespaceOptions ns = defaults;
  bool kind = false;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string item = text.substr(at, comma - at);
    at = comma + 1;
    const std::size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : item.substr(equals + 1);
    if (key == "readonly" && equals == std::string::npos) {
      ns.read_only = true;
    } else if (key == "block") {
      ns.block_size = parse_block(value);
    } else if ((key == "file" || key == "memory" || key == "null") && !kind && !value.empty()) {
      kind = true;
      if (key == "file") {
        ns.kind = NamespaceOptions::Kind::file;
        ns.path = value;
      } else {
        ns.kind = key == "memory" ? NamespaceOptions::Kind::memory : NamespaceOptions::Kind::null;
        ns.size = sized(ns.kind, value, "--namespace").size;
      }
    } else {
      throw CLI::ValidationError("--namespace",
                                 "cannot make sense of '" + item +
                                     "'; write one of file=PATH, memory=SIZE and null=SIZE, then "
                                     "perhaps block=512|4096 and readonly, with commas between");
    }
  }
  if (!kind) throw CLI::ValidationError("--namespace", "it names no file=, memory= or null=");
  return ns;
}

void check(const Options& options) {
  if (options.namespaces.empty()) {
    throw CLI::RequiredError("one of --file, --memory, --null and --namespace");
  }
  if (options.namespaces.size() > kMaxNamespaces) {
    throw CLI::ValidationError("--namespace",
                               "at most " + std::to_string(kMaxNamespaces) + " namespaces");
  }
  if (options.serial.size() > 20) {
    throw CLI::ValidationError("--serial", "at most 20 characters (NVMe has no room for more)");
  }
  for (const char c : options.serial) {
    if (c < 0x20 || c > 0x7e) throw CLI::ValidationError("--serial", "printable ASCII only");
  }
  for (const NamespaceOptions& ns : options.namespaces) {
    if (ns.kind == NamespaceOptions::Kind::memory && !options.state.empty()) {
      throw CLI::ValidationError(
          "--state",
          "a namespace in memory ends with the process, so nothing can go on "
          "with it; use --file with an image on a tmpfs");
    }
    if (ns.kind == NamespaceOptions::Kind::file && vfio_user::is_given_fd(ns.path) &&
        !options.state.empty()) {
      throw CLI::ValidationError(
          "--state",
          "an image that is given as a descriptor shares its lock with whoever opened it, so a "
          "successor cannot tell when the old requests have ended; give its path");
    }
    if (ns.kind != NamespaceOptions::Kind::file && ns.size % ns.block_size != 0) {
      throw CLI::ValidationError("--block-size", "a size of " + std::to_string(ns.size) +
                                                     " bytes is no multiple of the block size " +
                                                     std::to_string(ns.block_size));
    }
  }
}

}  // namespace

std::variant<Options, int> parse_options(int argc, char** argv) {
  Options options;
  std::vector<std::string> files;
  std::vector<std::string> memories;
  std::vector<std::string> nulls;
  std::vector<std::string> described;
  std::string block = "512";
  std::string doorbells = "shadow";
  bool read_only = false;

  CLI::App app(kDescription, "outboard-nvme");
  app.footer(kFooter);
  app.get_formatter()->column_width(34);
  app.set_version_flag("--version", "outboard-nvme " OUTBOARD_VERSION);
  app.add_option("--socket", options.socket,
                 "Unix socket to listen on; removed at the end. fd:N or fd:NAME: one that listens "
                 "already, as systemd passes it")
      ->required()
      ->type_name("PATH");
  app.add_option(
         "--file", files,
         "Image file or block device, one namespace each; fd:N or fd:NAME: one that is open")
      ->type_name("IMAGE")
      ->allow_extra_args(false);
  app.add_option("--memory", memories, "A RAM disk, lost at the end")
      ->type_name("SIZE")
      ->allow_extra_args(false);
  app.add_option("--null", nulls, "Takes writes, reads zeros")
      ->type_name("SIZE")
      ->allow_extra_args(false);
  app.add_option("--namespace", described,
                 "A namespace in full: file=PATH|memory=SIZE|null=SIZE[,block=N][,readonly]")
      ->type_name("KEY=VALUE,…")
      ->allow_extra_args(false);
  app.add_option("--block-size", block, "Block size of namespaces that name none (512)")
      ->check(CLI::IsMember({"512", "4096"}))
      ->type_name("512|4096");
  app.add_flag("--read-only", read_only, "All namespaces are write-protected");
  app.add_option("--queues", options.queues, "I/O queue pairs offered, 1 to 64 (64)")
      ->check(CLI::Range(1, int{kMaxIoQueues}))
      ->type_name("N");
  app.add_option("--doorbells", doorbells, "How doorbells arrive (shadow)")
      ->check(CLI::IsMember({"shadow", "page", "trap"}))
      ->type_name("shadow|page|trap");
  app.add_option("--serial", options.serial,
                 "Serial number; by default made from the images' paths or the socket's")
      ->type_name("TEXT");
  app.add_option("--state", options.state,
                 "Keep there what a successor needs to go on for the guest; made if missing")
      ->type_name("FILE");
  app.add_flag("--threads", options.threads, "Threads instead of io_uring for files");
  app.add_flag("--stats", options.stats, "One line of JSON on stderr at the end");
  app.add_flag("--once", options.once, "End when the first client has left");
  app.add_option("--ready-fd", options.ready_fd,
                 "Write one byte there when listening, and close it")
      ->check(CLI::NonNegativeNumber)
      ->type_name("FD");
  app.add_option("--first-read-fd", options.first_read_fd,
                 "Write a line of JSON there when the guest's first read is done")
      ->check(CLI::NonNegativeNumber)
      ->type_name("FD");

  std::string sandbox = "on";
  app.add_option("--sandbox", sandbox, "Keep the server in its sandbox; off is for debugging (on)")
      ->check(CLI::IsMember({"on", "off"}))
      ->type_name("on|off");

  try {
    app.parse(argc, argv);
    options.sandbox = sandbox == "on";
    NamespaceOptions defaults;
    defaults.block_size = parse_block(block);
    defaults.read_only = read_only;
    const auto add = [&](NamespaceOptions ns) {
      ns.block_size = defaults.block_size;
      ns.read_only = read_only;
      options.namespaces.push_back(std::move(ns));
    };
    for (const std::string& path : files) {
      NamespaceOptions ns;
      ns.path = path;
      add(ns);
    }
    for (const auto& size : memories) {
      add(sized(NamespaceOptions::Kind::memory, size, "--memory"));
    }
    for (const auto& size : nulls) add(sized(NamespaceOptions::Kind::null, size, "--null"));
    for (const auto& text : described) {
      options.namespaces.push_back(parse_namespace(text, defaults));
    }
    options.doorbells = doorbells == "shadow" ? DoorbellMode::shadow
                        : doorbells == "page" ? DoorbellMode::page
                                              : DoorbellMode::trap;
    check(options);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& wrong) {
    std::cerr << "outboard-nvme: " << wrong.what() << "\nTry: outboard-nvme --help\n";
    return kExitUsage;
  }
  return options;
}

}  // namespace outboard::nvme
