#pragma once

// Advice of madvise(2) that older headers do not name. A kernel that does not know it answers
// EINVAL, and nothing is done.

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
constexpr int MADV_POPULATE_WRITE = 23;  // Linux 5.14: makes pages present
#endif
#ifndef MADV_COLLAPSE
constexpr int MADV_COLLAPSE = 25;  // Linux 6.1: makes a huge page of small ones
#endif
