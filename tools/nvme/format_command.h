// Format NVM (§5.23): waits until the namespaces have no command in flight, erases them one after
// the other, and gives them their new block size.
#pragma once

#include "tools/nvme/core.h"

namespace outboard::nvme {

class FormatCommand {
 public:
  FormatCommand(Core& core, Engine& engine) : core_(core), engine_(engine) {}

  void execute(Request& request);
  void advance(Request& request);  // the backend has finished an operation of it
  void settle();                   // starts what waited
  // A format that waits or runs is forgotten (controller reset). The request when it still waits,
  // that is when no backend has it; else null.
  Request* cancel();

 private:
  static constexpr u64 kEraseStep = u64{64} << 20;  // bytes

  Status check(const Command& command) const;
  bool selected(const Command& command, u32 index) const;
  void erase(Request& request);
  void next_namespace(Request& request);
  void end(Request& request, Status status);

  Core& core_;
  Engine& engine_;
  Request* active_ = nullptr;
  bool waiting_ = false;
};

}  // namespace outboard::nvme
