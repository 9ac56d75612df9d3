#pragma once

// `--set` and its shorthands: values that go over those of the configuration file before it is
// read.

#include <vector>

#include "vmm/config.h"
#include "vmm/toml_table.h"

namespace outboard::vmm {

// Puts each into `root`, and its path into `context.overridden`; faults go to `context.errors`.
void apply_overrides(toml::table& root, const std::vector<Override>& overrides,
                     TomlContext& context);

}  // namespace outboard::vmm
