/* Calls a volume plugin as Docker does. Blocks; any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* One request on a connection of its own, `head` as it is written (with a blank line at its end), then `body`. Returns the whole answer,
 * or NULL when there was none within `timeout_ms`. The caller frees it. */
char *client_raw(const char *path, const char *head, const char *body, size_t n, int timeout_ms);
/* A POST of JSON; returns the body of the answer. *ret_status may be NULL. */
char *client_call(const char *socket, const char *call, const char *body, int timeout_ms, int *ret_status);
/* The same as dockerd does it: a call that did not go through is made again after growing delays (a hundredth of dockerd's), then
 * without its body, for that was used up. */
char *client_docker(const char *socket, const char *call, const char *body, int timeout_ms);
