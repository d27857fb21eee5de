/* Text forms of the command line: sizes, metadata, times, terminal width. Pure functions. */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <jansson.h>
#include <stdint.h>

/* "1073741824", "1G", "1.5 GiB": k, M, G, T with optional b or ib, either case, powers of 1024.
 * With a unit the result is rounded up to a multiple of 1024 bytes, as the API demands. */
struct err *text_parse_size(const char *text, uint64_t *ret_bytes) MUST_USE;
/* "1.50G"; "<no quota>" for 0 (contract section 7.3). */
char *text_format_quota(uint64_t bytes);
/* "731", "1.5K", "20.0G": short, for people. */
char *text_format_bytes(uint64_t bytes);

/* Adds "a=b,c=d" to `object`; keys must be new and not empty. `object` is unchanged on error. */
struct err *text_parse_metadata(const char *text, json_t *object) MUST_USE;
/* "a=b,c=d", sorted by key. */
char *text_format_metadata(const json_t *object);

/* "2026-01-31T12:00:00Z". */
char *text_format_time(double unix_seconds);
/* "12s", "3m", "5h", "2d": how long, rounded down. */
char *text_format_duration(double seconds);

/* How far something came; what is not known is 0, and `left` -1. */
struct text_progress {
    uint64_t sent, total, rate; /* bytes, bytes, bytes a second */
    long left;                  /* seconds */
};

/* "[=====>    ] 1.2G of about 2.9G (41 %) sent, 35.0M/s, 48s left" in at most `columns`; without the
 * bar when they are few. 0: as long as it is, without a bar. */
char *text_format_progress(const struct text_progress *p, size_t columns);

/* Columns that the UTF-8 text takes on a terminal (combining marks 0, wide characters 2). */
size_t text_width(const char *utf8);
/* Appends `text` with control characters (which could command the terminal) and broken UTF-8 as
 * "?". */
void text_append_safe(struct str *to, const char *text);
