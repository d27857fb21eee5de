/* YAML text as JSON values, for configuration files. Plain integers become integers, true and false booleans, null
 * and ~ null, everything else strings. Refused: duplicate keys, keys that are not scalars, more than one document, too
 * many values (aliases count as what they stand for), more than YAML_MAX_DEPTH levels. Pure; thread-safe. */
#pragma once

#include "base/err.h"

#include <jansson.h>

#define YAML_MAX_NODES 10000
#define YAML_MAX_DEPTH 32
#define YAML_MAX_BYTES (1u << 20)

struct yaml_limits {
    size_t bytes;
    unsigned values;
};

/* ERR_INVALID says what is wrong and in which line. An empty document is null. At most YAML_MAX_BYTES and YAML_MAX_NODES. */
struct err *yaml_load(const char *text, size_t n, json_t **ret_value) MUST_USE;
/* The same with other limits. */
struct err *yaml_load_within(const struct yaml_limits *limits, const char *text, size_t n, json_t **ret_value) MUST_USE;
