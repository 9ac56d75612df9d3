#pragma once

// What is taken from the whole process, or from its calling thread, before it meets a guest or a
// peer.

#include <cstdint>
#include <span>

namespace outboard::box {

// Closes the descriptors from 3 on that came from whoever started this program, known by their lack
// of the close-on-exec flag, which all of the program's own have; but those in `keep`. Descriptors
// that the program was given and has taken over are marked close-on-exec by whoever took them.
// Returns how many were closed. Main thread.
unsigned close_inherited(std::span<const int> keep = {});

// No core dumps: memory of guests is in none, but keys and data of the program's own buffers are.
void forbid_core_dumps();

// No file of this process grows beyond `bytes` (RLIMIT_FSIZE); writing further fails with EFBIG.
void limit_file_size(std::uint64_t bytes);

// Drops all capabilities of the calling thread but those whose bits are set in `keep`
// (1 << CAP_…). 0 or an errno.
[[nodiscard]] int keep_capabilities(std::uint64_t keep);

}  // namespace outboard::box
