// The two ways to an image: io_uring, and a pool of threads where io_uring is refused.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tools/nvme/backend.h"
#include "tools/nvme/file_image.h"

namespace outboard::nvme {

// Null where the kernel refuses io_uring or lacks an operation; `why` then says so.
std::unique_ptr<Backend> make_uring_backend(std::unique_ptr<FileImage>& image, std::string& why);

// `threads` at least 1. Each calls `started` before anything else, unless it is empty.
std::unique_ptr<Backend> make_thread_backend(std::unique_ptr<FileImage> image, unsigned threads,
                                             const std::function<void()>& started = {});

}  // namespace outboard::nvme
