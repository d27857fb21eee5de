/* What each fuzz target offers to its two drivers, libFuzzer and fuzz_smoke.c. */
#pragma once

#include "base/str.h"

#include <stddef.h>
#include <stdint.h>

/* Feeds one input; aborts when a rule is broken. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Appends the i-th valid input to `out`; false when there are no more. */
bool fuzz_seed(unsigned i, struct str *out);
