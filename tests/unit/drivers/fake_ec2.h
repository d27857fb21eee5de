/* Runs tests/ec2/fake_ec2.py, which says what it can do, and talks to it. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

struct fake_ec2 {
    pid_t pid;
    int end; /* closed: it ends */
    unsigned port;
    char url[48]; /* http://127.0.0.1:PORT */
};

/* `instances` ends with NULL: "i-0aaa=/host/root" each. It ends with this process at the latest. */
void fake_ec2_start(struct fake_ec2 *f, const char *dir, const char *const *instances);
void fake_ec2_stop(struct fake_ec2 *f);
/* What POST /control takes: fake_ec2_tell(f, "{s:{s:f}}", "settings", "lag_s", 0.5). As json_pack(). */
void fake_ec2_tell(struct fake_ec2 *f, const char *fmt, ...);
json_t *fake_ec2_state(struct fake_ec2 *f); /* the caller frees it */
unsigned fake_ec2_calls(struct fake_ec2 *f, const char *action);
/* The last value of that parameter of that action; "" when there was none. The caller frees it. */
char *fake_ec2_sent(struct fake_ec2 *f, const char *action, const char *parameter);
