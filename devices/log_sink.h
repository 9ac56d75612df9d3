// Where this room's log lines go. The VMM gives the sink; without one, lines are dropped.
#pragma once

#include <functional>
#include <string>

namespace outboard::devices {

enum class Severity { debug, info, warning, error };

// Called from any thread, possibly concurrently; must not call back into a device.
using LogSink = std::function<void(Severity, std::string)>;

}  // namespace outboard::devices
