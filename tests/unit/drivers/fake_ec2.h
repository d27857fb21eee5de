/* The EC2 of the tests: a simulator (tests/ec2/fake_ec2.py). */
#pragma once

#include "simulator.h"

#define fake_ec2_tell simulator_tell
#define fake_ec2_state simulator_state
#define fake_ec2_calls simulator_calls
#define fake_ec2_sent simulator_sent
#define fake_ec2_stop simulator_stop

/* `instances` ends with NULL: "i-0aaa=/host/root" each. */
static inline void fake_ec2_start(struct simulator *s, const char *dir,
                                  const char *const *instances)
{
    const char *args[16] = {NULL};

    for (size_t n = 0; *instances && n + 2 < sizeof(args) / sizeof(*args); instances++) {
        args[n++] = "--instance";
        args[n++] = *instances;
    }
    simulator_start(s, FAKE_EC2, dir, args);
}
