/* Reading the records of datasets without a tree of JSON values in between; used by record.c only. A start with a million
 * datasets is made of this. */
#pragma once

#include "model/dataset.h"

#include <stddef.h>

struct err;

/* Reads a record that is written exactly as record_dataset_encode() writes most: every field, in its order, no escapes, only
 * ASCII, no number above INT64_MAX, no transfer. NULL for anything else, damaged records among it: the full decoder decides
 * then. What it accepts, the full decoder reads the same. */
struct dataset *record_dataset_quick(const char *text, size_t n);
/* The full decoder. */
struct err *record_dataset_full(const char *text, size_t n, struct dataset **ret) __attribute__((warn_unused_result));
