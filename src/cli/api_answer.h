/* What an answer of the control service means (api.h, api_call). Pure. */
#pragma once

#include "cli/api.h"

#include <stddef.h>

struct api_answer {
    const char *peer; /* for messages, like method and path */
    const char *method, *path;
    long status;
    bool passes;      /* it had a Retry-After: what it refuses will go soon */
    const char *text; /* n bytes */
    size_t n;
};

struct err *api_answer_read(const struct api_answer *a, json_t **ret_answer) MUST_USE;
/* The sentence of an answer that refuses, with what is wrong in the body; NULL when there is none (a foreign server's page). The
 * caller frees it. */
char *api_answer_description(const json_t *answer);
