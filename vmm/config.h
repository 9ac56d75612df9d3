#pragma once

// The configuration file: TOML to a resolved MachineConfig. Called once, on the main thread.
// The schema is in README.md; `schema()` is what `outboard check --schema` prints.

#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "vmm/machine_config.h"

namespace outboard::vmm {

// Every fault found, a line each: "file:line:column: what is wrong; what to do".
struct ConfigErrors {
  std::vector<std::string> lines;
};

// One `--set path=value` or its shorthand. The path is dotted; devices are addressed by position
// or by name: "machine.vcpus", "device.0.socket", "device.disk0.socket". The value is TOML; what is
// no TOML value is taken as a string.
struct Override {
  std::string path;
  std::string value;
  bool literal_string = false;  // take `value` as a string even if it looks like another type
};

// Reads `path` ("-" is standard input). Relative paths inside are relative to the file's folder;
// those of overrides are relative to the working directory.
[[nodiscard]] tl::expected<MachineConfig, ConfigErrors> load_config(
    const std::string& path, const std::vector<Override>& overrides);

// The same for text at hand; `name` stands for the file in errors, `folder` resolves paths.
[[nodiscard]] tl::expected<MachineConfig, ConfigErrors> parse_config(
    const std::string& text, const std::string& name, const std::string& folder,
    const std::vector<Override>& overrides);

// Every key with its type, default and meaning, as a commented TOML file.
[[nodiscard]] std::string schema();

}  // namespace outboard::vmm
