/* Fails each allocation of a piece of work in turn, those inside libraries too: whoever links this has its malloc family.
 * One thread. */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <stdbool.h>

/* Appends what came of the work to `out`; what it appends with enough memory is the only right answer. An error means that
 * the work ended cleanly without one. */
typedef struct err *exhaust_fn(struct str *out);

struct exhaust_trial {
    const char *name;
    void (*before)(void); /* these two, around `run`, have all the memory they want; may be NULL */
    exhaust_fn *run;
    void (*after)(void);
    /* Allocations to try, evenly spread; with FLOCKER_TEST_FULL. 0: all. */
    unsigned at_most, full_at_most;
    bool logs; /* an error, but a time-out, must also be told in the log */
};

/* Runs the trial once in a child of its own for each allocation, which fails there. Each time it must end with the sentence
 * of base/mem.h, with an error that calls nobody's bytes damaged, or with the right answer; else the test fails. */
void exhaust_each(const struct exhaust_trial *t);

/* In between no allocation fails nor counts: for the side of the work that is not tried. They nest. */
void exhaust_pause(void);
void exhaust_resume(void);

/* Ends the child: the test fails with this text. */
_Noreturn void exhaust_wrong(const char *why);
