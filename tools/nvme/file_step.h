// What one request means in system calls, one at a time: shared by the io_uring backend, which
// queues them, and the thread pool, which makes them.
#pragma once

#include "tools/nvme/backend.h"

namespace outboard::nvme {

struct FileStep {
  enum class Call { readv, writev, sync, allocate };
  Call call = Call::sync;
  const iovec* parts = nullptr;
  unsigned count = 0;
  int flags = 0;  // RWF_DSYNC of a write, mode of fallocate
  u64 offset = 0;
  u64 length = 0;
};

// The next call of a request. A new request has attempt and progress 0.
FileStep next_step(BackendRequest& request);

// Takes the call's result (bytes or a negative errno). True: the request is finished and its error
// is set; false: there is a next step.
bool take_result(BackendRequest& request, long result);

}  // namespace outboard::nvme
