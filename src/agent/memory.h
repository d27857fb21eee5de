/* The agent's memory of the store it obeys, in <state_dir>/store.json (design section 6, rule 0). */
#pragma once

#include "base/err.h"
#include "core/node.h"

/* No file: an empty memory. ERR_CORRUPT: the file is not ours; it is left alone. Blocks. */
struct err *memory_load(const char *state_dir, struct node_memory *ret) MUST_USE;
/* Durable on return: temporary file, fsync, rename, fsync of the directory. Blocks. */
struct err *memory_save(const char *state_dir, const struct node_memory *m) MUST_USE;
