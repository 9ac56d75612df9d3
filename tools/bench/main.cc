// outboard-bench: measures outboard as a child process, alone or beside other VMMs.
#include <cstdio>
#include <exception>

#include <CLI/CLI.hpp>

#include "tools/bench/access_command.h"
#include "tools/bench/boot_command.h"
#include "tools/bench/error.h"
#include "tools/bench/start_command.h"

namespace {

constexpr const char* kFooter = R"(
How to read the figures: `start` needs no Linux and runs on any /dev/kvm; its times are the host's.
`boot-to-io` needs a KVM that runs a stock kernel; inside tools/testbed its times are of an emulated
machine and only ratios count. On a shared machine a ratio of pairs says more than two medians.

Exit status:
  0 done   1 a run failed or took too long   2 wrong command line or configuration
  3 a program or file is missing             4 results cannot be written   128+n ended by signal n

Examples:
  outboard-bench start                               50 cold runs of a payload that powers off
  outboard-bench start --vs qemu --html start.html   20 pairs with QEMU q35 and microvm, a page
  outboard-bench boot-to-io my.toml --disk root.img --runs 10
  outboard-bench boot-to-io --kernel vmlinuz --vs qemu --html boot.html

The manual is outboard-bench(1).)";

}  // namespace

int main(int argc, char** argv) {
  int status = 0;
  CLI::App app("outboard-bench: what outboard costs, measured and explained.", "outboard-bench");
  app.set_version_flag("--version", "outboard-bench " OUTBOARD_VERSION);
  app.require_subcommand(1);
  app.footer(kFooter);
  app.get_formatter()->column_width(34);
  outboard::bench::add_boot_command(app, status);
  outboard::bench::add_start_command(app, status);
  outboard::bench::add_access_command(app, status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& wrong) {
    std::fprintf(stderr, "outboard-bench: %s\nTry: outboard-bench --help\n", wrong.what());
    return static_cast<int>(outboard::bench::ExitStatus::usage);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "outboard-bench: internal error: %s\n", error.what());
    return static_cast<int>(outboard::bench::ExitStatus::failed);
  }
  return status;
}
