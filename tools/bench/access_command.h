#pragma once

// The sub-command `outboard-bench access`. Called once by main(), on the main thread, before any
// other thread exists.

namespace CLI {
class App;
}

namespace outboard::bench {

// Parsing it runs it. `status` becomes the exit status: 0 measured, also when a target is missed;
// 1 something failed; 2 wrong command line; 3 a program is missing; 4 the results cannot be
// written; 128 + n ended by signal n.
void add_access_command(CLI::App& app, int& status);

}  // namespace outboard::bench
