#pragma once

// How vmm/ reports that something cannot be set up: one clear line that names the thing and the
// remedy, and the exit status the program ends with.

#include <string>
#include <utility>

#include <tl/expected.hpp>

#include "vmm/exit_status.h"

namespace outboard::vmm {

struct MachineError {
  ExitStatus status = ExitStatus::internal_error;
  std::string message;
};

template <class T>
using Result = tl::expected<T, MachineError>;

[[nodiscard]] inline tl::unexpected<MachineError> failure(ExitStatus status, std::string message) {
  return tl::unexpected<MachineError>(MachineError{status, std::move(message)});
}

}  // namespace outboard::vmm
