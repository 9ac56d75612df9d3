// From the command line's namespaces to open ones.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "tools/nvme/file_image.h"
#include "tools/nvme/namespaces.h"
#include "tools/nvme/options.h"
#include "tools/nvme/state_file.h"

namespace outboard::nvme {

// Opens and locks everything; `remarks` gets a line for what an operator should know. The error is
// one sentence. Threads that serve a file call `started` first, unless it is empty.
tl::expected<std::vector<Namespace>, std::string> open_namespaces(
    const Options& options, const std::string& serial, std::vector<std::string>& remarks,
    const LockWait& wait = {}, const std::function<void()>& started = {});

// What the state file of such a server is of. Looks at the images without opening them.
StateIdentity state_identity(const Options& options, const std::string& serial);

// The serial number of a controller whose command line gives none: the same for the same images,
// or, with none, for the same socket.
std::string derive_serial(const Options& options);

}  // namespace outboard::nvme
