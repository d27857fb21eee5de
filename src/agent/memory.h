/* The agent's memory of the store it obeys, in <state_dir>/store.json (design section 6, rule 0). */
#pragma once

#include "base/err.h"
#include "core/node.h"

/* The file's text and back; false: it is no such text. Pure. The caller frees the text. */
char *memory_format(const struct node_memory *m);
bool memory_parse(const char *text, size_t n, struct node_memory *ret);
/* No file: an empty memory. ERR_CORRUPT: the file is not ours; it is left alone. Blocks. */
struct err *memory_load(const char *state_dir, struct node_memory *ret) MUST_USE;
/* Durable on return: temporary file, fsync, rename, fsync of the directory. Blocks. */
struct err *memory_save(const char *state_dir, const struct node_memory *m) MUST_USE;
