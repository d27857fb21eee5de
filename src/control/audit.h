/* The audit log: lines that go to a file, written by a thread of its own, so that a slow disk holds
 * nobody up. Lines are in order; when the disk is too slow or full some are lost, counted and
 * complained about, never waited for. */
#pragma once

#include "base/err.h"

#include <stdint.h>

struct audit;

/* Opens the file for appending (made with mode 0640 when it is missing) and starts the thread. */
struct err *audit_start(const char *path, struct audit **ret_audit) MUST_USE;
/* Writes what is queued, and ends. Accepts NULL; returns NULL. */
struct audit *audit_stop(struct audit *a);
/* Takes the line over, which ends with "\n". Any thread; does not block. */
void audit_write(struct audit *a, char *line);
/* Opens the file anew before the next line: after it was moved away. Any thread; does not block. */
void audit_reopen(struct audit *a);
/* Lines written and lines lost so far. Any thread. */
void audit_counts(struct audit *a, uint64_t *ret_written, uint64_t *ret_lost);
