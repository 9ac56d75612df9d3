#pragma once

// The commands of the `outboard` program, one function each; every one runs on the main thread and
// returns the exit status of the process. Errors are printed on standard error, one line each.

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "vmm/arch.h"
#include "vmm/config.h"
#include "vmm/exit_status.h"
#include "vmm/marks.h"

namespace outboard::vmm {

// What the command line said of a configuration: the file and what overrides it.
struct ConfigSource {
  std::string file;
  std::vector<Override> overrides;
  std::string append;  // added to the guest's command line
};

struct RunCommand {
  ConfigSource config;
  bool statistics = false;
  std::string boot_report;  // path of a file to write; empty: none
  std::string trace;        // likewise
  bool sandbox = false;     // see Sandbox; the program's own default is on
};
int run_machine(const RunCommand& command, Marks& marks);

struct CheckCommand {
  ConfigSource config;
  bool schema = false;
};
int check_config(const CheckCommand& command);

enum class DumpKind { acpi, fdt, cmdline };
struct DumpCommand {
  ConfigSource config;
  DumpKind kind = DumpKind::acpi;
  std::string out;  // folder, made if missing
};
int dump_tables(const DumpCommand& command);

struct ProbeCommand {
  std::string socket;
  bool json = false;
  std::chrono::milliseconds timeout{5000};
};
int probe_server(const ProbeCommand& command);

// Reads the configuration; prints what is wrong with it.
std::optional<MachineConfig> load_or_explain(const ConfigSource& source);

// Where memory lies on this host, or where it would on a host with 39 address bits when there is no
// KVM to ask (a warning says so); prints what is wrong.
tl::expected<arch::MemoryLayout, ExitStatus> layout_or_explain(const MachineConfig& config);

}  // namespace outboard::vmm
