#pragma once

namespace CLI {
class App;
}

namespace outboard::bench {

// `outboard-bench start`: exec to the guest's first instruction, and memory. Puts the exit status
// into `status` when it has run.
void add_start_command(CLI::App& app, int& status);

}  // namespace outboard::bench
