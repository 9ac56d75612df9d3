#include "tools/bench/boot_command.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <unistd.h>

#include "tools/bench/contest.h"
#include "tools/bench/outputs.h"
#include "tools/bench/programs.h"
#include "tools/bench/progress.h"
#include "tools/bench/units.h"
#include "tools/bench/unpacked_kernel.h"

namespace outboard::bench {
namespace {

constexpr const char* kFooter = R"(
A cold run is a new process and fresh device servers; the page cache is warm unless --drop-caches is
given. The servers are outboard-nvme and are up before the clock starts. The end is the kernel's
first completed read on an I/O queue of the first disk, by the server's clock (CLOCK_MONOTONIC, as
everywhere): the same for every VMM. Then the run is ended, unless --whole lets the guest go on.

CONFIG.toml is a machine as for `outboard run`. Devices with a `server` command get that command,
one process a run, read-only; a device with a `socket` needs --disk IMAGE, or --disk memory for an
empty one. Without CONFIG the machine has 512 MiB, one vCPU and one empty disk.

With --vs both VMMs get the same kernel, command line, memory and disks; outboard is given the file as
it is (it unpacks a bzImage itself, in its warm-up, and keeps the result; --unpack-each makes it
unpack in every run), QEMU the bzImage or the unpacked kernel, whichever
its warm-up found faster, -nodefaults and no display. With --unpack all get the unpacked kernel, and
nobody's unpacking counts. A QEMU without
vfio-user-pci gets its own NVMe controller on the image, and then both are compared by a console line
(--console-line) as this program reads it.

Examples:
  outboard-bench boot-to-io --kernel vmlinuz
  outboard-bench boot-to-io configs/quickstart.toml --kernel vmlinuz --disk root.img --runs 20
  outboard-bench boot-to-io --kernel vmlinuz --vs qemu --machine q35 --pairs 20 --html boot.html)";

constexpr const char* kDefaultWords = "console=ttyS0 quiet panic=-1 root=/dev/nvme0n1 ro";

class BootMeasurement {
 public:
  explicit BootMeasurement(const BenchOptions& options) : options_(options) {}

  Result<void> run() {
    auto program = find_program("outboard", options_.outboard, "--outboard");
    if (!program) return tl::unexpected(program.error());
    auto server = find_program("outboard-nvme", options_.outboard_nvme, "--outboard-nvme");
    if (!server) return tl::unexpected(server.error());
    auto folder = PrivateFolder::create();
    if (!folder) return tl::unexpected(folder.error());
    Interrupt interrupt;

    auto file = read_machine();
    if (!file) return tl::unexpected(file.error());
    auto workload = file->workload(options_.disks, *server);
    if (!workload) return tl::unexpected(workload.error());
    if (auto prepared = prepare(*workload); !prepared) return prepared;
    const std::string named = workload->kernel;
    if (options_.unpack) {
      const std::string unpacked = folder->file("kernel");
      auto packed = unpack_kernel(named, unpacked);
      if (!packed) return tl::unexpected(packed.error());
      if (*packed) workload->kernel = unpacked;
    }

    std::optional<Qemu> qemu;
    if (std::ranges::find(options_.rivals, "qemu") != options_.rivals.end()) {
      auto probed = probe_qemu(options_.qemu);
      if (!probed) return tl::unexpected(probed.error());
      qemu = *probed;
    }
    by_console_ = options_.clock == "console" || (qemu && !qemu->vfio_user);
    if (by_console_ && options_.clock == "server")
      return fail(ExitStatus::missing,
                  fmt::format("--clock server: QEMU {} has no vfio-user-pci", qemu->version));

    Contest contest(options_, *folder, interrupt);
    contest.workload = std::move(*workload);
    if (by_console_)
      contest.workload.command_line += " loglevel=7";  // else the line is not printed
    contest.plan.until = options_.whole ? Until::exit
                         : by_console_  ? Until::console_line
                                        : Until::first_read;
    contest.plan.line = options_.console_line;
    Results results;
    results.command = "boot-to-io";
    results.host = host_facts();
    results.last_key = by_console_ ? kConsoleLine : kServerRead;
    results.title = fmt::format(
        "process start to the guest kernel's first completed NVMe read; {}{}, {} of memory, {} "
        "vCPU{}, {} disk{}{}",
        named, options_.unpack ? " (unpacked for all)" : "",
        size_text(static_cast<double>(contest.workload.memory)), contest.workload.vcpus,
        contest.workload.vcpus == 1 ? "" : "s", contest.workload.disks.size(),
        contest.workload.disks.size() == 1 ? "" : "s",
        options_.drop_caches ? ", page cache emptied before each run" : ", warm page cache");
    results.notes.push_back("kernel command line: " + contest.workload.command_line);

    Contestant ours = contest.outboard(*program, *file);
    {
      Progress warming("warm-up", 1);
      if (auto warm = contest.run(ours); !warm) return tl::unexpected(warm.error());
    }
    if (options_.rivals.empty()) {
      if (auto done = contest.series(ours, static_cast<std::size_t>(options_.runs)); !done)
        return done;
      results.ours = std::move(ours.side);
    } else if (auto done = duels(contest, ours, qemu, *folder, results); !done) {
      return done;
    }
    return put_out(results, options_);
  }

 private:
  Result<MachineFile> read_machine() const {
    if (!options_.config.empty()) return MachineFile::read(options_.config);
    if (options_.kernel.empty())
      return fail(ExitStatus::usage, "name a configuration file, or a kernel with --kernel");
    return MachineFile::make(std::max<std::size_t>(1, options_.disks.size()));
  }

  Result<void> prepare(Workload& workload) const {
    if (workload.disks.empty())
      return fail(ExitStatus::usage, "the machine has no device, so there is no I/O to wait for");
    if (!options_.kernel.empty()) workload.kernel = options_.kernel;
    if (workload.kernel.empty()) return fail(ExitStatus::usage, "no kernel: give --kernel");
    if (::access(workload.kernel.c_str(), R_OK) != 0)
      return fail(ExitStatus::missing, fmt::format("cannot read the kernel {}", workload.kernel));
    workload.kernel = std::filesystem::absolute(workload.kernel).string();
    if (!options_.memory.empty()) {
      const auto bytes = size_of(options_.memory);
      if (!bytes)
        return fail(ExitStatus::usage,
                    fmt::format("--memory: '{}' is no size; write 512M or 4G", options_.memory));
      workload.memory = *bytes;
    }
    workload.keep_unpacked = !options_.unpack_each;
    if (workload.command_line.empty()) workload.command_line = kDefaultWords;
    if (!options_.append.empty()) workload.command_line += " " + options_.append;
    if (!options_.doorbells.empty()) {
      for (auto& disk : workload.disks)
        disk.insert(disk.end(), {"--doorbells", options_.doorbells});
    }
    return {};
  }

  // Unpacks the kernel, and keeps it unpacked for QEMU if a warm-up of both finds that faster.
  Result<void> choose_kernel(Contest& contest, const Contestant& theirs,
                             const PrivateFolder& folder, Results& results) const {
    const std::string unpacked = folder.file("vmlinux");
    contest.workload.vmlinux.clear();
    auto packed = unpack_kernel(contest.workload.kernel, unpacked);
    if (!packed) return tl::unexpected(packed.error());
    Progress progress("warm-up of " + theirs.side.name, *packed ? 2 : 1);
    const auto time = [&]() -> Result<double> {
      auto one = contest.run_rival(theirs);
      if (!one) return tl::unexpected(one.error());
      progress.step("");
      return one->at(key()).value_or(0);
    };
    const auto with_given = time();
    if (!with_given || !*packed)
      return with_given ? Result<void>() : tl::unexpected(with_given.error());
    contest.workload.vmlinux = unpacked;
    const auto with_unpacked = time();
    const bool better = with_unpacked && *with_unpacked < *with_given;
    if (!better) contest.workload.vmlinux.clear();
    results.notes.push_back(fmt::format(
        "{} is given the {}: its warm-up took {} with the bzImage and {} with the unpacked kernel",
        theirs.side.name, better ? "unpacked kernel" : "bzImage", duration_text(*with_given),
        with_unpacked ? duration_text(*with_unpacked) : "for ever"));
    return {};
  }

  std::string key() const { return std::string(by_console_ ? kConsoleLine : kServerRead); }

  Result<void> duel(Contest& contest, const Contestant& ours, Contestant theirs,
                    Results& results) const {
    Contestant beside = ours;
    beside.side.runs.clear();
    if (auto done = contest.pairs(beside, theirs, static_cast<std::size_t>(options_.pairs)); !done)
      return done;
    if (auto note = contest.repeated(theirs.side.name); !note.empty())
      results.notes.push_back(std::move(note));
    results.ours.runs.insert(results.ours.runs.end(), beside.side.runs.begin(),
                             beside.side.runs.end());
    const std::string what =
        by_console_
            ? fmt::format(
                  "from the moment before the VMM's process is made until outboard-bench "
                  "reads '{}' on the console (the other VMM's disk is its own emulation)",
                  options_.console_line)
            : "from the moment before the VMM's process is made until outboard-nvme has completed "
              "the kernel's first read, by its clock";
    results.duels.push_back({std::move(beside.side), std::move(theirs.side), key(), what});
    return {};
  }

  Result<void> duels(Contest& contest, const Contestant& ours, const std::optional<Qemu>& qemu,
                     const PrivateFolder& folder, Results& results) const {
    results.ours = ours.side;
    for (const std::string& rival : options_.rivals) {
      if (rival != "qemu") {
        auto program = find_program("cloud-hypervisor", "", "PATH");
        if (!program) return tl::unexpected(program.error());
        auto theirs =
            contest.cloud_hypervisor(*program, version_in(first_line_of({*program, "--version"})));
        results.notes.push_back(
            "Cloud Hypervisor's command line here was written from its "
            "documentation; this program's authors have not run it");
        if (auto done = choose_kernel(contest, theirs, folder, results); !done) return done;
        if (auto done = duel(contest, ours, std::move(theirs), results); !done) return done;
        continue;
      }
      if (!qemu->vfio_user) {
        if (std::ranges::find(contest.workload.images, "") != contest.workload.images.end())
          return fail(ExitStatus::missing,
                      fmt::format("QEMU {} has no vfio-user-pci: for its own NVMe emulation every "
                                  "disk needs an image (--disk IMAGE)",
                                  qemu->version));
        results.notes.push_back(
            fmt::format("QEMU {} has no vfio-user-pci: its disk is its own NVMe emulation on the "
                        "same image, so two device models are compared, not only two VMMs",
                        qemu->version));
      }
      for (const QemuMachine machine : {QemuMachine::q35, QemuMachine::microvm}) {
        if (!options_.machines.empty() &&
            std::ranges::find(options_.machines, to_string(machine)) == options_.machines.end())
          continue;
        auto theirs = contest.qemu(*qemu, machine);
        if (auto done = choose_kernel(contest, theirs, folder, results); !done) return done;
        theirs.side.command = contest.qemu(*qemu, machine).side.command;
        if (auto done = duel(contest, ours, std::move(theirs), results); !done) return done;
      }
    }
    return {};
  }

  const BenchOptions& options_;
  bool by_console_ = false;
};

}  // namespace

void add_boot_command(CLI::App& app, int& status) {
  auto options = std::make_shared<BenchOptions>();
  options->runs = 20;
  options->limit = 120;
  CLI::App* boot = app.add_subcommand(
      "boot-to-io", "Process start to the guest kernel's first completed NVMe read");
  boot->footer(kFooter);
  boot->add_option("config", options->config, "A machine, as for `outboard run`")
      ->type_name("CONFIG.toml");
  boot->add_option("--kernel", options->kernel, "Kernel image (kernel.path)")->type_name("FILE");
  boot->add_option("--append", options->append, "Words added to the kernel's command line")
      ->type_name("WORDS");
  boot->add_option("--memory", options->memory, "Guest memory (machine.memory)")->type_name("SIZE");
  boot->add_option("--disk", options->disks,
                   "Image for the next device, served read-only; 'memory': an empty disk")
      ->type_name("IMAGE|memory")
      ->allow_extra_args(false);
  boot->add_flag("--unpack", options->unpack,
                 "Unpack a bzImage first and give every VMM the result");
  boot->add_option("--patience", options->patience,
                   "Repeat another VMM's run that is not done within --limit, up to N times")
      ->type_name("N")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  boot->add_flag("--whole", options->whole,
                 "Let each guest run until it powers off, for the marks after the first read");
  boot->add_option("--clock", options->clock,
                   "What ends a run: the server's first completed read, or a console line")
      ->check(CLI::IsMember({"auto", "server", "console"}))
      ->capture_default_str();
  boot->add_option("--console-line", options->console_line, "That line, or a part of it")
      ->type_name("TEXT")
      ->capture_default_str();
  add_run_options(*boot, *options);
  boot->callback([options, &status] { status = finish(BootMeasurement(*options).run()); });
}

}  // namespace outboard::bench
