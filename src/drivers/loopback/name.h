/* Names of volume files: "block-<uuid>_<size>". Pure. */
#pragma once

#include "base/uuid.h"

#define LOOPBACK_PREFIX "block-"

char *loopback_name(const struct uuid *dataset, uint64_t size); /* the caller frees it */
/* false, and nothing written: it is not the name of a volume file. */
bool loopback_name_parse(const char *name, struct uuid *ret_dataset, uint64_t *ret_size);
