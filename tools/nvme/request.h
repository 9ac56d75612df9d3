// A command from the moment it is fetched until its completion entry is written.
#pragma once

#include <vector>

#include "tools/nvme/aligned_buffer.h"
#include "tools/nvme/backend.h"
#include "tools/nvme/data_pointer.h"

namespace outboard::nvme {

struct Namespace;

struct Request final : BackendRequest {
  // What comes when the backend has finished the current operation.
  enum class Step : u8 { finish, read, flush_next, sync, discard_next, erase_next };

  Command command{};
  u32 slot = 0;  // of its record in the journal
  u16 sq = 0;
  Step step = Step::finish;
  Namespace* ns = nullptr;  // the one it counts against, null for admin commands
  DataPointer data;
  AlignedBuffer bounce;
  bool bounced = false;
  std::vector<DatasetRange> ranges;
  u32 next = 0;  // index of the next range or namespace; of a format, the current one
  u64 done_bytes = 0;

  // The completion, once there is one.
  Status status = Status::success;
  u32 dw0 = 0;
};

}  // namespace outboard::nvme
