#pragma once

namespace CLI {
class App;
}

namespace outboard::bench {

// `outboard-bench boot-to-io`: process start to the guest kernel's first completed NVMe read. Puts
// the exit status into `status` when it has run.
void add_boot_command(CLI::App& app, int& status);

}  // namespace outboard::bench
