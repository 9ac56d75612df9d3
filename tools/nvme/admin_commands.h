// The admin command set (§5), but for Format NVM.
#pragma once

#include "tools/nvme/core.h"

namespace outboard::nvme {

class AdminCommands {
 public:
  AdminCommands(Core& core, Engine& engine) : core_(core), engine_(engine) {}

  // Validates a fetched command and carries it out; finished on return, but for asynchronous event
  // requests and queue deletions that wait.
  void execute(Request& request);

  // Completes deletions whose queue has no command left, and events that can be told.
  void settle();

  // The deletions and event requests that wait; forgotten by this call (controller reset).
  std::vector<Request*> take_waiting();

 private:
  Status run(Request& request, u32& dw0, bool& later);
  Status create_cq(const Command& command);
  Status create_sq(const Command& command);
  Status delete_cq(const Command& command);
  Status doorbell_buffer_config(const Command& command);
  Status delete_sq(Request& request, bool& later);
  Status identify_command(Request& request);
  Status get_log_page(Request& request);
  Status set_features(Request& request, u32& dw0);
  Status get_features(Request& request, u32& dw0);
  Status abort(const Command& command, u32& dw0);
  Status queue_memory(const Command& command, u64 bytes, Access access);
  Status to_guest(Request& request, std::span<const std::byte> data);

  Core& core_;
  Engine& engine_;
  std::vector<Request*> deletions_;
};

}  // namespace outboard::nvme
