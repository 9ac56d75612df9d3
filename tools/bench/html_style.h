#pragma once

#include <string_view>

namespace outboard::bench {

// The page's style sheet: light and dark by the reader's preference.
[[nodiscard]] std::string_view html_style();

}  // namespace outboard::bench
