/* YAML text as JSON values, for configuration files. Plain integers become integers, true and false booleans, null
 * and ~ null, everything else strings. Refused: duplicate keys, keys that are not scalars, more than one document, more
 * than YAML_MAX_NODES values (aliases count as what they stand for), more than YAML_MAX_DEPTH levels. Pure; thread-safe. */
#pragma once

#include "base/err.h"

#include <jansson.h>

#define YAML_MAX_NODES 10000
#define YAML_MAX_DEPTH 32
#define YAML_MAX_BYTES (1u << 20)

/* ERR_INVALID says what is wrong and in which line. An empty document is null. */
struct err *yaml_load(const char *text, size_t n, json_t **ret_value) MUST_USE;
