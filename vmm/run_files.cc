#include "vmm/run_files.h"

#include <utility>

#include <fmt/core.h>

#include "vmm/boot_report.h"
#include "vmm/log.h"
#include "vmm/trace_file.h"

namespace outboard::vmm {
namespace {

Result<void> open(std::optional<OutputFile>& file, const char* option, const std::string& path) {
  if (path.empty()) return {};
  auto made = OutputFile::create(path);
  if (!made)
    return failure(made.error().status, fmt::format("{}: {}", option, made.error().message));
  file.emplace(std::move(*made));
  return {};
}

}  // namespace

Result<RunFiles> RunFiles::create(const std::string& report, const std::string& trace) {
  RunFiles files;
  if (auto opened = open(files.report_file_, "--boot-report", report); !opened) {
    return tl::unexpected(opened.error());
  }
  if (auto opened = open(files.trace_file_, "--trace", trace); !opened) {
    return tl::unexpected(opened.error());
  }
  if (files.report_file_ && files.trace_file_ &&
      files.report_file_->path() == files.trace_file_->path()) {
    return failure(ExitStatus::usage,
                   fmt::format("--boot-report and --trace both name {}; name two files", report));
  }
  if (files.report_file_) {
    files.smaps_.emplace("/proc/self/smaps");
    files.cpuinfo_.emplace("/proc/cpuinfo");
  }
  if (files.trace_file_) files.trace_ = std::make_unique<Trace>();
  return files;
}

std::vector<std::string> RunFiles::folders() const {
  std::vector<std::string> all;
  for (const std::optional<OutputFile>* const file : {&trace_file_, &report_file_}) {
    if (*file) all.push_back(folder_of((*file)->path()));
  }
  return all;
}

std::optional<MemoryUse> RunFiles::memory() const {
  return smaps_ ? memory_use(*smaps_) : std::nullopt;
}

void RunFiles::guest_started() {
  at_first_run_ = memory();
}

Result<void> RunFiles::write(const MachineConfig& config, const Marks& marks, RunEnd end) {
  if (trace_file_) {
    write_trace(*trace_, marks, config.vcpus,
                [this](std::string_view text) { trace_file_->write(text); });
    if (trace_->dropped() != 0) {
      log::warning("{}: {} events had no room and were dropped", trace_file_->path(),
                   trace_->dropped());
    }
  }
  if (report_file_) {
    report_file_->write(to_json(BootReport{.config = config,
                                           .marks = marks,
                                           .host = host_facts(*cpuinfo_),
                                           .exit_status = end.exit_status,
                                           .message = std::move(end.message),
                                           .counters = std::move(end.counters),
                                           .at_first_run = at_first_run_,
                                           .at_end = end.at_end,
                                           .sandbox = std::move(end.sandbox)}));
  }
  Result<void> written;
  for (std::optional<OutputFile>* const file : {&trace_file_, &report_file_}) {
    if (!*file) continue;
    if (auto committed = (*file)->commit(); !committed && written) written = committed;
  }
  return written;
}

}  // namespace outboard::vmm
