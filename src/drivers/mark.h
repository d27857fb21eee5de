/* The ownership mark of one dataset on this node: a file `mark` of one line in the folder that the
 * driver names. */
#pragma once

#include "base/err.h"
#include "model/volume.h"

#define MARK_TEXT_MAX 256u

/* "flocker-mark 1 owned 17 0 -\n": format, version, state, epoch, transfer, snapshot or "-". */
void mark_format(const struct volume_mark *m, char ret_text[MARK_TEXT_MAX]);
/* Accepts exactly what mark_format() writes; false otherwise. Pure. */
bool mark_parse(const char *text, struct volume_mark *ret_mark);

/* No mark in the folder, or `dirfd` -1: state MARK_NONE. ERR_CORRUPT: there is a file, but not a
 * mark. */
struct err *mark_read(int dirfd, struct volume_mark *ret_mark) MUST_USE;
struct err *mark_write(int dirfd, const struct volume_mark *m) MUST_USE;
struct err *mark_remove(int dirfd) MUST_USE;
