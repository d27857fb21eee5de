/* The compressed data of a send stream, for where the kernel does not take them as they are. Pure. */
#pragma once

#include "base/err.h"

/* Fills all of `to`: what the data fall short of are zeros, what they have more is left out (padding). `compression` as in
 * <linux/btrfs.h>. ERR_UNSUPPORTED: LZO, for which we have no library. */
struct err *decompress(uint32_t compression, const uint8_t *from, size_t n_from, uint8_t *to, size_t n_to) MUST_USE;
