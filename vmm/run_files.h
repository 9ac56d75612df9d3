#pragma once

// The files that a run leaves behind when asked to: the boot report and the trace. Owned by the
// command; main thread.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/box/box.h"
#include "vmm/error.h"
#include "vmm/machine_config.h"
#include "vmm/machine_counters.h"
#include "vmm/marks.h"
#include "vmm/memory_use.h"
#include "vmm/output_file.h"
#include "vmm/read_file.h"
#include "vmm/trace.h"

namespace outboard::vmm {

// How a run ended, and what is to be told of it.
struct RunEnd {
  int exit_status = 0;
  std::string message = {};              // may be empty
  MachineCounters counters = {};         // empty: there was no machine
  std::optional<MemoryUse> at_end = {};  // of memory, before the machine was taken down
  std::optional<box::Report> sandbox = {};
};

class RunFiles final {
 public:
  // An empty path is a file that is not wanted. Before any thread exists. Errors:
  // ExitStatus::usage.
  [[nodiscard]] static Result<RunFiles> create(const std::string& report, const std::string& trace);

  // For the machine; none when no trace is wanted.
  [[nodiscard]] Trace* trace() { return trace_.get(); }
  [[nodiscard]] bool wants_report() const { return report_file_.has_value(); }

  // Where they will be put in place.
  [[nodiscard]] std::vector<std::string> folders() const;

  // Of this process, now; none when no report is wanted.
  [[nodiscard]] std::optional<MemoryUse> memory() const;

  // The vCPUs run.
  void guest_started();

  // The machine is gone. Errors: ExitStatus::internal_error, for the first file that could not be
  // written.
  [[nodiscard]] Result<void> write(const MachineConfig& config, const Marks& marks, RunEnd end);

 private:
  RunFiles() = default;

  std::optional<OutputFile> report_file_;
  std::optional<OutputFile> trace_file_;
  std::unique_ptr<Trace> trace_;
  std::optional<MemoryUse> at_first_run_;
  // Opened while files may be; none when no report is wanted.
  std::optional<KernelFile> smaps_;
  std::optional<KernelFile> cpuinfo_;
};

}  // namespace outboard::vmm
