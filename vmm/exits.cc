#include "vmm/exits.h"

namespace outboard::vmm {

std::string_view key_of(ExitKind kind) {
  switch (kind) {
    case ExitKind::port:
      return "port";
    case ExitKind::memory:
      return "memory";
    case ExitKind::interrupted:
      return "interrupted";
    case ExitKind::pages_gone:
      return "pages_gone";
    case ExitKind::system_event:
      return "system_event";
    case ExitKind::shutdown:
      return "shutdown";
    case ExitKind::failure:
    case ExitKind::count:
      break;
  }
  return "failure";
}

ExitCounters& ExitCounters::operator+=(const ExitCounters& other) {
  for (std::size_t i = 0; i < kExitKinds; ++i) by_kind[i] += other.by_kind[i];
  unanswered += other.unanswered;
  return *this;
}

}  // namespace outboard::vmm
