#include "tools/bench/start_command.h"

#include <algorithm>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "tools/bench/contest.h"
#include "tools/bench/load_floor.h"
#include "tools/bench/outputs.h"
#include "tools/bench/payload.h"
#include "tools/bench/programs.h"
#include "tools/bench/units.h"
#include "tools/bench/unpacked_kernel.h"

namespace outboard::bench {
namespace {

constexpr const char* kFooter = R"(
Each run is a new process with fresh device servers (outboard-nvme, memory back end), which are up
before the clock starts. The clock is CLOCK_MONOTONIC, read just before the process is made. The
guest is a few instructions with a PVH note: it writes one byte to its serial port and powers off.

With --vs, what both VMMs are compared by is that byte as this program reads it: their own marks are
not comparable. QEMU gets -nodefaults, no display, a shared memfd, the same ELF and the same
servers, through vfio-user-pci where it has that.

With --kernel another kernel is started and measured to its first console byte, its end, or --limit:
how far a kernel gets does not matter for its first KVM_RUN.

Examples:
  outboard-bench start
  outboard-bench start --runs 200 --devices 2 --memory 4G --json start.json
  outboard-bench start --kernel /boot/vmlinuz --limit 2
  outboard-bench start --vs qemu --machine q35 --pairs 20 --html start.html)";

class StartMeasurement {
 public:
  explicit StartMeasurement(const BenchOptions& options) : options_(options) {}

  Result<void> run() {
    auto program = find_program("outboard", options_.outboard, "--outboard");
    if (!program) return tl::unexpected(program.error());
    std::string server;
    if (options_.devices > 0) {
      auto found = find_program("outboard-nvme", options_.outboard_nvme, "--outboard-nvme");
      if (!found) return tl::unexpected(found.error());
      server = *found;
    }
    auto folder = PrivateFolder::create();
    if (!folder) return tl::unexpected(folder.error());
    Interrupt interrupt;

    const auto file = MachineFile::make(static_cast<std::size_t>(options_.devices));
    auto workload = file.workload({}, server);
    if (!workload) return tl::unexpected(workload.error());
    if (auto prepared = prepare(*workload, *folder); !prepared) return prepared;

    Contest contest(options_, *folder, interrupt);
    contest.workload = std::move(*workload);
    contest.plan.until = own_payload() ? Until::exit : Until::first_byte;
    contest.plan.any_status = !own_payload();
    Results results;
    results.command = "start";
    results.host = host_facts();
    results.last_key = own_payload() ? kFirstByte : kFirstRun;
    results.title =
        fmt::format("process start to the guest's first instruction; {}, {} of memory, {} device{}",
                    own_payload() ? "freestanding payload" : options_.kernel,
                    size_text(static_cast<double>(contest.workload.memory)), options_.devices,
                    options_.devices == 1 ? "" : "s");

    Contestant ours = contest.outboard(*program, file);
    if (options_.rivals.empty()) {
      const auto runs = static_cast<std::size_t>(options_.runs);
      if (auto done = own_payload() ? contest.series(ours, runs)
                                    : beside_floor(contest, ours, runs, *folder, results);
          !done)
        return done;
      if (own_payload()) {
        if (auto done = contest.memory(ours); !done) return done;
      }
      results.ours = std::move(ours.side);
    } else if (auto done = duels(contest, ours, results); !done) {
      return done;
    }
    return put_out(results, options_);
  }

 private:
  bool own_payload() const { return options_.kernel.empty(); }

  Result<void> prepare(Workload& workload, const PrivateFolder& folder) const {
    if (!options_.memory.empty()) {
      const auto bytes = size_of(options_.memory);
      if (!bytes)
        return fail(ExitStatus::usage,
                    fmt::format("--memory: '{}' is no size; write 512M or 4G", options_.memory));
      workload.memory = *bytes;
    }
    if (!options_.doorbells.empty()) {
      for (auto& disk : workload.disks)
        disk.insert(disk.end(), {"--doorbells", options_.doorbells});
    }
    workload.command_line = kPayloadRuns;
    workload.kernel = options_.kernel;
    workload.keep_unpacked = !options_.unpack_each;
    if (!own_payload()) {
      workload.command_line = options_.append.empty() ? "console=ttyS0" : options_.append;
      return {};
    }
    workload.kernel = folder.file("poweroff");
    return write_file(workload.kernel, poweroff_payload());
  }

  // In turn with what outboard has to do each time: unpack and copy, or only copy.
  Result<void> beside_floor(Contest& contest, Contestant& ours, std::size_t runs,
                            const PrivateFolder& folder, Results& results) const {
    std::string kernel = options_.kernel;
    results.floor_is = "unpack and copy";
    if (!options_.unpack_each) {
      const std::string unpacked = folder.file("vmlinux");
      const auto packed = unpack_kernel(kernel, unpacked);
      if (!packed) return tl::unexpected(packed.error());
      if (*packed) kernel = unpacked;
      results.floor_is = "copy";
    }
    const auto memory = size_of(options_.memory).value_or(512U << 20);
    auto floor = LoadFloor::open(kernel, memory);
    if (!floor) return tl::unexpected(floor.error());
    auto done = contest.series(ours, runs, [&floor] { return floor->measure(); });
    results.load_floor = floor->sample();
    return done;
  }

  Result<void> duel(Contest& contest, const Contestant& ours, Contestant theirs,
                    Results& results) const {
    Contestant beside = ours;
    beside.side.runs.clear();
    if (auto done = contest.pairs(beside, theirs, static_cast<std::size_t>(options_.pairs)); !done)
      return done;
    for (Contestant* side : {&beside, &theirs}) {
      if (auto done = contest.memory(*side); !done) return done;
    }
    results.ours.runs.insert(results.ours.runs.end(), beside.side.runs.begin(),
                             beside.side.runs.end());
    results.duels.push_back({std::move(beside.side), std::move(theirs.side),
                             std::string(kFirstByte),
                             "from the moment before the VMM's process is made until "
                             "outboard-bench reads the payload's first byte of console output"});
    return {};
  }

  Result<void> duels(Contest& contest, const Contestant& ours, Results& results) const {
    if (!own_payload())
      return fail(ExitStatus::usage,
                  "--vs measures the payload's first action: leave out --kernel");
    results.ours = ours.side;
    for (const std::string& rival : options_.rivals) {
      if (rival == "qemu") {
        auto qemu = probe_qemu(options_.qemu);
        if (!qemu) return tl::unexpected(qemu.error());
        if (!qemu->vfio_user && options_.devices > 0)
          results.notes.push_back(
              fmt::format("QEMU {} has no vfio-user-pci: it runs with its own "
                          "NVMe emulation on a null back end instead",
                          qemu->version));
        for (const QemuMachine machine : {QemuMachine::q35, QemuMachine::microvm}) {
          if (!options_.machines.empty() &&
              std::ranges::find(options_.machines, to_string(machine)) == options_.machines.end())
            continue;
          if (auto done = duel(contest, ours, contest.qemu(*qemu, machine), results); !done)
            return done;
        }
      } else {
        auto program = find_program("cloud-hypervisor", "", "PATH");
        if (!program) return tl::unexpected(program.error());
        const std::string version = version_in(first_line_of({*program, "--version"}));
        results.notes.push_back(
            "Cloud Hypervisor's command line here was written from its "
            "documentation; this program's authors have not run it");
        if (auto done = duel(contest, ours, contest.cloud_hypervisor(*program, version), results);
            !done)
          return done;
      }
    }
    return {};
  }

  const BenchOptions& options_;
};

}  // namespace

void add_start_command(CLI::App& app, int& status) {
  auto options = std::make_shared<BenchOptions>();
  options->limit = 30;
  CLI::App* start = app.add_subcommand(
      "start", "Process start to the guest's first instruction, phase by phase, and memory");
  start->footer(kFooter);
  start->add_option("--memory", options->memory, "Guest memory (512M)")->type_name("SIZE");
  start->add_option("--devices", options->devices, "NVMe devices, each a server of its own")
      ->check(CLI::Range(0, 16))
      ->capture_default_str();
  start->add_option("--kernel", options->kernel, "Another kernel instead of the payload")
      ->type_name("FILE");
  start->add_option("--append", options->append, "That kernel's command line (console=ttyS0)")
      ->type_name("WORDS");
  add_run_options(*start, *options);
  start->callback([options, &status] { status = finish(StartMeasurement(*options).run()); });
}

}  // namespace outboard::bench
