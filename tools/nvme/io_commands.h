// The NVM command set (§6): flush, write, read, compare, write zeroes, dataset management.
#pragma once

#include "tools/nvme/core.h"

namespace outboard::nvme {

class IoCommands {
 public:
  IoCommands(Core& core, Engine& engine) : core_(core), engine_(engine) {}

  // Validates a fetched command and begins it, or finishes it at once.
  void execute(Request& request);
  // The backend has finished an operation of `request`.
  void advance(Request& request);

 private:
  Status begin(Request& request, Namespace* ns);
  Status begin_transfer(Request& request, Namespace& ns);
  Status begin_zeroes(Request& request, Namespace& ns);
  Status begin_dataset(Request& request, Namespace& ns);
  Status check_range(const Namespace& ns, u64 start, u64 blocks) const;
  void flush_from(Request& request);
  void discard_next(Request& request);
  void start_transfer(Request& request);
  void finish(Request& request, Status status);
  void deliver(Request& request);
  bool durable(const Request& request) const;

  Core& core_;
  Engine& engine_;
};

// What the host is told about a backend's errno.
Status status_of(int error, BackendRequest::Kind kind);

}  // namespace outboard::nvme
