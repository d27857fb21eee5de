/* Shared storage is listed by one node for all (core/README.md, "Lists of shared storage"). What a list says is a hint to look,
 * never the truth: it may be behind. */
#pragma once

#include "base/uuid.h"

#include <stdbool.h>
#include <stdint.h>

#define SIGHTING_HOSTS_MAX 4096 /* bytes, without the NUL */

/* One volume, as a list of the storage had it. */
struct sighting {
    struct uuid dataset;
    bool present; /* false: the list has no volume of it (any more); the rest says nothing */
    uint64_t size;
    char *hosts; /* of the machines to which it is attached, by the storage's names, with spaces between; NULL: none. Owned */
};

void sighting_done(struct sighting *s);
void sighting_copy(struct sighting *to, const struct sighting *from); /* `to` is overwritten */
/* true when both lists said the same of it. */
bool sighting_same(const struct sighting *a, const struct sighting *b);

/* Is this machine among them, is another? Pure. `hosts` may be NULL. */
struct where_attached {
    bool here, elsewhere;
};
struct where_attached sighting_where(const char *hosts, const char *own);

/* Who lists the storage for a node. */
enum list_duty {
    LIST_ALONE,   /* the node itself, for nobody else: also without, or with an older, control service */
    LIST_FOR_ALL, /* the node itself, and it tells the control service what it saw */
    LIST_BY_OTHER, /* another: the node hears what concerns it */
    LIST_DUTY_MAX,
};

struct list_order {
    enum list_duty duty;
    uint32_t interval_s; /* FOR_ALL: from one list to the next */
};

/* Calls of the storage's API (drivers/budget.h). From the control service: */
struct calls_share {
    uint32_t per_hour, burst; /* the node's own share, from now on */
    uint64_t handed;          /* on top of that, since the session began */
};
/* ... and to it: */
struct calls_report {
    uint32_t waiting;   /* so many wait for a call */
    uint64_t returned;  /* of what was handed out, since the session began: was not needed */
    uint64_t throttled; /* how often the API said "too many", since the agent's start */
};
