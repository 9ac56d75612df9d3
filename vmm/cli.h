#pragma once

#include "vmm/marks.h"

namespace outboard::vmm {

// Reads the command line and runs the command it names; returns the exit status of the process.
int command_line(int argc, char** argv, Marks& marks);

}  // namespace outboard::vmm
