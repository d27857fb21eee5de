/* A growth of an attachable volume that has begun. It is noted durably beside the mark (`dir` is mark_dir()) before anything
 * grows, with the size until then, and the note goes when the file system has grown. As long as it is there, that is the size that
 * the volume is said to have, so that the plan has it grown again. All block; thread-safe. */
#pragma once

#include "base/err.h"

#include <stdint.h>

/* An older note stays. */
struct err *growth_note(int dir, uint64_t size) MUST_USE;
/* *ret_size 0: none has begun. */
struct err *growth_read(int dir, uint64_t *ret_size) MUST_USE;
struct err *growth_forget(int dir) MUST_USE;
