/* Runs a simulator of somebody's API (tests/ec2, tests/arrays), which says itself what it can do, and talks to it. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

struct simulator {
    pid_t pid;
    int end; /* closed: it ends */
    unsigned port;
    char url[48]; /* http://127.0.0.1:PORT, or https: */
    char ca[128]; /* of https: the file with the authority; "" otherwise */
};

/* `script` is run with --dir DIR and `args` (ends with NULL), and talks TLS when "--tls" is among them. It ends with this process at
 * the latest. */
void simulator_start(struct simulator *s, const char *script, const char *dir,
                     const char *const *args);
void simulator_stop(struct simulator *s);
/* What POST /control takes: simulator_tell(s, "{s:{s:f}}", "settings", "lag_s", 0.5). As json_pack(). */
void simulator_tell(struct simulator *s, const char *fmt, ...);
json_t *simulator_state(struct simulator *s); /* the caller frees it */
unsigned simulator_calls(struct simulator *s, const char *action);
/* The last value of that parameter of that action; "" when there was none. The caller frees it. */
char *simulator_sent(struct simulator *s, const char *action, const char *parameter);
