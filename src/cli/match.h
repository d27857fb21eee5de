/* Finding the dataset or node that a person means: a prefix of its uuid, or its name. Pure
 * functions over the lists that the API gives. */
#pragma once

#include "base/err.h"

#include <jansson.h>

/* `datasets`: items with dataset_id, metadata, deleted. Matches the whole id, else those whose id
 * starts with `text` or whose metadata `name` is `text`; deleted ones only when no other matches.
 * ERR_NOT_FOUND, or ERR_CONFLICT when several match. *ret_item is borrowed from the list. */
struct err *match_dataset(const json_t *datasets, const char *text, json_t **ret_item) MUST_USE;

/* `nodes`: items with uuid, host. Matches a prefix of the uuid, or the whole host address. */
struct err *match_node(const json_t *nodes, const char *text, json_t **ret_item) MUST_USE;
