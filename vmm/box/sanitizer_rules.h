#pragma once

// What a build with sanitizers asks the kernel for beyond what the program itself does. In a place
// of its own: a release never has it, and a build that has it says so.

#include "vmm/box/call_rule.h"

namespace outboard::box {

// "AddressSanitizer", "ThreadSanitizer", or empty: this build has none.
[[nodiscard]] const char* sanitizer_name();

// Beyond every thread's rules; empty without sanitizers. The first part is what checked code asks
// for anywhere, in a signal handler too; the whole has threads, reports and the search for leaks as
// well.
[[nodiscard]] CallRules sanitizer_checks();
[[nodiscard]] CallRules sanitizer_rules();

}  // namespace outboard::box
