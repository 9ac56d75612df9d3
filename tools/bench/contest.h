#pragma once

// Cold runs of outboard, alone or in pairs with another VMM: each with fresh servers for its disks.

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "tools/bench/bench_options.h"
#include "tools/bench/guest_run.h"
#include "tools/bench/interrupt.h"
#include "tools/bench/machine_file.h"
#include "tools/bench/private_folder.h"
#include "tools/bench/summary.h"
#include "tools/bench/vmm_command.h"

namespace outboard::bench {

// One VMM in one set-up.
struct Contestant {
  Side side;            // its runs are added to
  bool servers = true;  // its disks are outboard-nvme's
  std::string report;   // where it writes a boot report, or empty
  // Its command line for the disks at these sockets.
  std::function<Result<std::vector<std::string>>(const std::vector<std::string>& sockets)> command;
};

class Contest {
 public:
  Contest(const BenchOptions& options, const PrivateFolder& folder, Interrupt& interrupt)
      : options_(options), folder_(folder), interrupt_(interrupt) {}

  // How each run ends and what it records; changed between series.
  RunPlan plan;
  // What every contestant is given; `disks` are started from it.
  Workload workload;

  [[nodiscard]] Contestant outboard(const std::string& program, const MachineFile& file);
  [[nodiscard]] Contestant qemu(const Qemu& qemu, QemuMachine machine);
  [[nodiscard]] Contestant cloud_hypervisor(const std::string& program, const std::string& version);

  // One run, not kept.
  [[nodiscard]] Result<Run> run(const Contestant& contestant);
  // The same of somebody else's VMM, up to --patience times more when one is not done within its
  // limit.
  [[nodiscard]] Result<Run> run_rival(const Contestant& contestant);
  // One line if run_rival() had to repeat any; else empty. Starts the count anew.
  [[nodiscard]] std::string repeated(const std::string& name);
  // `count` runs, kept; `before` each, whatever that is.
  [[nodiscard]] Result<void> series(Contestant& contestant, std::size_t count,
                                    const std::function<Result<void>()>& before = {});
  // Pairs, kept; the order alternates.
  [[nodiscard]] Result<void> pairs(Contestant& ours, Contestant& theirs, std::size_t count);
  // Three runs of a guest that holds: the median of memory is that of the middle run. They are put
  // beside the runs that are there.
  [[nodiscard]] Result<void> memory(Contestant& contestant);

 private:
  [[nodiscard]] Result<void> drop_caches() const;

  const BenchOptions& options_;
  const PrivateFolder& folder_;
  Interrupt& interrupt_;
  int late_ = 0;            // runs of a rival that were not done in time
  std::size_t number_ = 0;  // of runs so far: names of sockets
};

// Programs and versions that --vs asks for.
[[nodiscard]] Result<Qemu> probe_qemu(const std::string& given);

}  // namespace outboard::bench
