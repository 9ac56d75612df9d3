// doctest, set up to compile quickly: every test of the protocol includes this and nothing else of
// it.
#pragma once

#define DOCTEST_CONFIG_SUPER_FAST_ASSERTS
#include <doctest/doctest.h>
