#include <cstdio>
#include <cstdlib>
#include <exception>

#include "vmm/cli.h"
#include "vmm/exit_status.h"
#include "vmm/marks.h"

namespace {

// Before every other constructor of the program; those of its libraries have run.
std::uint64_t loaded_at = 0;
__attribute__((constructor(101))) void note_loaded() {
  loaded_at = outboard::vmm::Marks::now();
}

// The time before exec is known to whoever called it, and to nobody else: the kernel's own record
// ticks at 10 ms.
void stamp_start(outboard::vmm::Marks& marks) {
  using outboard::vmm::Mark;
  constexpr const char* kVariable = "OUTBOARD_STARTED_AT";
  const auto parent = outboard::vmm::parent_stamp(std::getenv(kVariable), loaded_at);
  ::unsetenv(kVariable);  // not for the servers that this process starts
  marks.stamp_at(Mark::process_start, parent.value_or(loaded_at));
  marks.stamp_at(Mark::program_loaded, loaded_at);
}

}  // namespace

int main(int argc, char** argv) {
  outboard::vmm::Marks marks;
  stamp_start(marks);
  try {
    return outboard::vmm::command_line(argc, argv, marks);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "outboard: internal error: %s; please report it\n", error.what());
    return outboard::vmm::to_int(outboard::vmm::ExitStatus::internal_error);
  }
}
