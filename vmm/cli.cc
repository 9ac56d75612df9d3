#include "vmm/cli.h"

#include <cstdio>
#include <functional>

#include <CLI/CLI.hpp>

#include "vmm/commands.h"
#include "vmm/completion.h"
#include "vmm/exit_status.h"
#include "vmm/log.h"
#include "vmm/units.h"

namespace outboard::vmm {
namespace {

constexpr const char* kRunHelp =
    R"(
The guest's serial console is on standard input and output, the log on standard error.
At a terminal: Ctrl-A x ends the machine, Ctrl-A p presses its power button, Ctrl-A h helps.
SIGTERM presses the power button; a second one, or the deadline, ends the machine. SIGUSR1 prints
what --stats prints.)";

constexpr const char* kFooter = R"(
Exit status of run:
  0 guest powered off     5 KVM is missing or lacks something    9 guest triple fault
  1 internal error        6 guest memory cannot be had          10 vCPU failure (registers printed)
  2 wrong command line    7 a device cannot be attached         11 stopped at a deadline
  3 wrong configuration   8 a device was lost                128+n ended by signal n
  4 kernel or initrd     12 a system call that the sandbox forbids

Examples:
  outboard run configs/quickstart.toml --kernel /boot/vmlinuz --append "root=/dev/nvme0n1 rw"
  outboard run my.toml --set machine.vcpus=4 --set device.disk0.socket=/run/disk0.sock
  outboard check my.toml            what the machine will be
  outboard probe /run/disk0.sock    what a device server offers
  outboard dump acpi my.toml --out /tmp/tables && iasl -d /tmp/tables/DSDT.aml

The manual is outboard(1).)";

// The options that every command with a configuration has.
void add_config_options(CLI::App& app, ConfigSource& source) {
  const auto shorthand = [&](const char* flag, const char* path, bool literal, const char* help) {
    app.add_option_function<std::string>(
           flag,
           [&source, path, literal](const std::string& value) {
             source.overrides.push_back({path, value, literal});
           },
           help)
        ->type_name("VALUE");
  };
  shorthand("--kernel", "kernel.path", true, "Kernel image (kernel.path)");
  shorthand("--initrd", "kernel.initrd", true, "Initial RAM disk (kernel.initrd)");
  shorthand("--memory", "machine.memory", true, "Guest memory, such as 2G (machine.memory)");
  shorthand("--vcpus", "machine.vcpus", false, "Number of vCPUs, 1 to 64 (machine.vcpus)");
  app.add_option_function<std::vector<std::string>>(
         "--append",
         [&source](const std::vector<std::string>& all) {
           for (const std::string& words : all) source.append += " " + words;
         },
         "Words added to the guest's command line; may be repeated")
      ->type_name("WORDS")
      ->allow_extra_args(false);
  app.add_option_function<std::vector<std::string>>(
         "--set",
         [&source](const std::vector<std::string>& settings) {
           for (const std::string& setting : settings) {
             const std::size_t equals = setting.find('=');
             if (equals == std::string::npos)
               throw CLI::ValidationError("--set", "write PATH=VALUE, as in machine.vcpus=4");
             source.overrides.push_back(
                 {setting.substr(0, equals), setting.substr(equals + 1), false});
           }
         },
         "Override any key: machine.vcpus=4, device.disk0.socket=/run/x.sock")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
}

void add_config_file(CLI::App& app, ConfigSource& source, bool required) {
  CLI::Option* file =
      app.add_option("config", source.file, "Configuration file; - is standard input")
          ->type_name("CONFIG.toml");
  if (required) file->required();
}

std::string to_duration_check(const std::string& text) {
  return parse_duration(text) ? std::string() : "write a time such as 5s or 250ms";
}

}  // namespace

int command_line(int argc, char** argv, Marks& marks) {
  CLI::App app("outboard: a micro-VMM for devices in other processes, reached over vfio-user.",
               "outboard");
  app.set_version_flag("--version", "outboard " OUTBOARD_VERSION);
  app.require_subcommand(0, 1);
  app.footer(kFooter);
  app.get_formatter()->column_width(34);

  std::string level = "info";
  app.add_option("--log-level", level, "Lowest level of log lines on standard error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
  std::string shell;
  app.add_option("--completion", shell, "Print a completion script and exit")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));

  RunCommand run;
  CLI::App* run_app =
      app.add_subcommand("run", "Boot the guest that CONFIG describes, until it ends");
  run_app->footer(kRunHelp);
  add_config_file(*run_app, run.config, true);
  add_config_options(*run_app, run.config);
  run_app->add_flag("--stats", run.statistics, "Print counters and boot times at the end");
  run_app
      ->add_option("--boot-report", run.boot_report,
                   "Write boot times and counters as JSON when the run ends")
      ->type_name("FILE.json");
  run_app
      ->add_option("--trace", run.trace,
                   "Write every exit and message with its times, for ui.perfetto.dev")
      ->type_name("FILE.json");

  std::string sandbox = "on";
  run_app->add_option("--sandbox", sandbox, "Keep outboard in its sandbox; off is for debugging")
      ->check(CLI::IsMember({"on", "off"}))
      ->type_name("on|off")
      ->capture_default_str();

  CheckCommand check;
  CLI::App* check_app =
      app.add_subcommand("check", "Print the machine that CONFIG describes; starts nothing");
  add_config_file(*check_app, check.config, false);
  add_config_options(*check_app, check.config);
  check_app->add_flag("--schema", check.schema, "Print every key with its default and meaning");

  ProbeCommand probe;
  std::string timeout = "5s";
  CLI::App* probe_app =
      app.add_subcommand("probe", "Print what a vfio-user server offers; no VM is needed");
  probe_app->footer(
      "\nPrints capabilities, regions, shared pages, interrupts and the configuration space. The\n"
      "device is not changed: no reset, no DMA window, no interrupt. Exit status: 0 the device is\n"
      "fit for a guest, 7 it is broken or does not answer.");
  probe_app->add_option("socket", probe.socket, "Socket of the server")
      ->type_name("SOCKET")
      ->required();
  probe_app->add_flag("--json", probe.json, "Print JSON");
  probe_app->add_option("--timeout", timeout, "Deadline of each request")
      ->check(to_duration_check)
      ->capture_default_str();

  DumpCommand dump;
  CLI::App* dump_app =
      app.add_subcommand("dump", "Write the tables made for the guest, for iasl -d and dtc");
  std::string kind;
  dump_app->add_option("table", kind, "acpi, fdt or cmdline")
      ->check(CLI::IsMember({"acpi", "fdt", "cmdline"}))
      ->required();
  add_config_file(*dump_app, dump.config, true);
  add_config_options(*dump_app, dump.config);
  dump_app->add_option("--out", dump.out, "Folder to write to, made if missing")
      ->type_name("DIR")
      ->required();

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "outboard: %s\nTry 'outboard --help'.\n", error.what());
    return to_int(ExitStatus::usage);
  }

  constexpr std::array kLevels = {"trace", "debug", "info", "warning", "error", "off"};
  for (std::size_t i = 0; i < kLevels.size(); ++i)
    if (level == kLevels[i]) log::set_level(static_cast<log::Level>(i));

  if (!shell.empty()) {
    std::fputs(std::string(completion_script(shell)).c_str(), stdout);
    return to_int(ExitStatus::powered_off);
  }
  run.sandbox = sandbox == "on";
  if (*run_app) return run_machine(run, marks);
  if (*check_app) {
    if (check.config.file.empty() && !check.schema) {
      std::fputs("outboard: check: name a configuration file, or give --schema\n", stderr);
      return to_int(ExitStatus::usage);
    }
    return check_config(check);
  }
  if (*probe_app) {
    probe.timeout = *parse_duration(timeout);
    return probe_server(probe);
  }
  if (*dump_app) {
    dump.kind = kind == "acpi" ? DumpKind::acpi : kind == "fdt" ? DumpKind::fdt : DumpKind::cmdline;
    return dump_tables(dump);
  }
  std::fputs(app.help().c_str(), stderr);
  return to_int(ExitStatus::usage);
}

}  // namespace outboard::vmm
