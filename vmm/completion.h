#pragma once

#include <string_view>

namespace outboard::vmm {

// The completion script of `outboard` for a shell ("bash", "zsh" or "fish"); empty for any other.
[[nodiscard]] std::string_view completion_script(std::string_view shell);

}  // namespace outboard::vmm
