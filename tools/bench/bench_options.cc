#include "tools/bench/bench_options.h"

#include <CLI/CLI.hpp>

namespace outboard::bench {

void add_run_options(CLI::App& app, BenchOptions& options) {
  app.add_option("--runs", options.runs, "Cold runs, when there is no --vs")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--vs", options.rivals, "Another VMM, measured in pairs with outboard")
      ->check(CLI::IsMember({"qemu", "cloud-hypervisor"}))
      ->type_name("qemu|cloud-hypervisor")
      ->allow_extra_args(false);
  app.add_option("--pairs", options.pairs, "Pairs with each other VMM; who is first alternates")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--machine", options.machines, "QEMU's machine type; both without it")
      ->check(CLI::IsMember({"q35", "microvm"}))
      ->type_name("q35|microvm")
      ->allow_extra_args(false);
  app.add_option("--qemu", options.qemu, "The QEMU to use (qemu-system-x86_64 on PATH)")
      ->type_name("PROGRAM");
  app.add_option("--outboard", options.outboard, "The outboard to use (beside this program)")
      ->type_name("PROGRAM");
  app.add_option("--outboard-nvme", options.outboard_nvme,
                 "The outboard-nvme to use (beside this program)")
      ->type_name("PROGRAM");
  app.add_option("--doorbells", options.doorbells, "Passed on to outboard-nvme")
      ->check(CLI::IsMember({"shadow", "page", "trap"}))
      ->type_name("shadow|page|trap");
  app.add_flag(
      "--unpack-each", options.unpack_each,
      "outboard unpacks a bzImage in every run, instead of keeping what it unpacked first");
  app.add_flag("--drop-caches", options.drop_caches,
               "Empty the host's page cache before each run (root)");
  app.add_option("--limit", options.limit, "Deadline of one run in seconds")
      ->check(CLI::Range(1, 86'400))
      ->capture_default_str();
  app.add_option("--json", options.json, "Write every figure there")->type_name("FILE");
  app.add_option("--html", options.html, "Write one self-contained page there, with a timeline")
      ->type_name("FILE");
}

}  // namespace outboard::bench
