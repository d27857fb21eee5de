/* A copy of the catalogue of volumes on disk, so that Docker is answered after a restart also while the control service is away. It is as
 * old as it is: nothing is decided by it. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "model/volume_call.h"

/* The file is made piece by piece. Pure. */
void copy_begin(struct str *s);
void copy_append(struct str *s, const struct volume_entry *v);
void copy_end(struct str *s);
/* Hands each entry to `fn`, which copies it. ERR_CORRUPT: some may have been handed out. */
struct err *copy_parse(const char *text, size_t n, void (*fn)(void *cookie, const struct volume_entry *), void *cookie) MUST_USE;

/* No file is an empty catalogue. */
struct err *copy_load_sync(const char *state_dir, void (*fn)(void *cookie, const struct volume_entry *), void *cookie) MUST_USE;
struct err *copy_save_sync(const char *state_dir, const char *text, size_t n) MUST_USE;
