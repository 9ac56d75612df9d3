#include <cstdio>
#include <exception>

#include "vmm/cli.h"
#include "vmm/exit_status.h"
#include "vmm/marks.h"

int main(int argc, char** argv) {
  outboard::vmm::Marks marks;
  marks.stamp(outboard::vmm::Mark::process_start);
  try {
    return outboard::vmm::command_line(argc, argv, marks);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "outboard: internal error: %s; please report it\n", error.what());
    return outboard::vmm::to_int(outboard::vmm::ExitStatus::internal_error);
  }
}
