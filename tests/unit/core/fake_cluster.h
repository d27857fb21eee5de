/* An engine with nodes that obey at once, and keep what they have when nobody is there to tell them anything. Whatever comes
 * out of the engine is carried out; what it says about dataset D and container "c" is remembered. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/engine.h"

#define NODES 3 /* id(1) .. id(3); the first session of node n is 10 + n, the next 20 + n */

struct fake {
    struct engine *e;
    struct now now;
    uint64_t seed;
    struct generation life;
    uint64_t restored; /* begin() with a store that was put back from a copy of that revision; 0 = not */
    bool unsettled;    /* ... and waits for the operator; over when that is committed */
    uint64_t sessions[NODES + 1]; /* the last */
    struct hello hellos[NODES + 1]; /* what a node says of itself when it comes; strings are static */
    struct report reports[NODES + 1]; /* about dataset D */
    char kept[NODES + 1][1][SNAPSHOT_NAME_SIZE]; /* snapshots in these, of nodes that can keep replicas */
    const char *mount[NODES + 1];     /* of D, which it tells when it comes, first of all; "": it has none; NULL: it does not tell yet */
    bool silent[NODES + 1];           /* its storage does not answer when it comes: it tells of no dataset */
    bool deaf[NODES + 1];             /* it does nothing of what it is told */
    const char *image_problem[NODES + 1]; /* why it cannot have images; NULL = it has them at once */
    enum role role[NODES + 1];            /* of its last order about D */
    uint64_t number[NODES + 1];           /* likewise: up to which it takes anything away */
    size_t fenced[NODES + 1];             /* likewise: from so many nodes it may take the volume away */
    uint64_t compare[NODES + 1];          /* likewise: the number of a comparison, and with whom */
    struct uuid compare_with[NODES + 1];
    uint64_t orders;                      /* sent, to all of them */
    const char *fails;                    /* what the store says to commits; NULL = they go well */
    enum result_code last;
    char *text;
    uint64_t revision;
    struct dataset *stored; /* dataset D, as committed */
    struct fence *fence;    /* the last that was committed, if it has not ended */
    size_t started;         /* orders to run a container */
    size_t refused;         /* sessions */
};

struct uuid id(unsigned char n);
extern const struct uuid D; /* = id(77) */

/* With all nodes there; for cmocka_unit_test_setup_teardown(). */
int fake_setup(void **state);
int fake_teardown(void **state);
/* A store at that revision, in a new life. */
void begin(struct fake *f, unsigned char life, uint64_t revision);
/* Carries out everything that comes out, until nothing does. */
void settle(struct fake *f);
/* Opens the node's session, and reports what it has. settle() carries out what follows. */
void come(struct fake *f, unsigned char n, struct uuid store, struct uuid generation, uint64_t seen);
void come_back(struct fake *f, unsigned char n); /* having obeyed this store all the time */
void leave(struct fake *f, unsigned char n);
void tell(struct fake *f, unsigned char n); /* reports[n] */

enum result_code run(struct fake *f, struct command c); /* with settle() */
struct dataset *wanted(unsigned char dataset, unsigned char node);
enum result_code create(struct fake *f, unsigned char node); /* D */
enum result_code move(struct fake *f, unsigned char node);
enum result_code remove_dataset(struct fake *f, bool purge);
enum result_code lease(struct fake *f, unsigned char node); /* of D, without end */
enum result_code unlease(struct fake *f);
struct container *with_volume(unsigned char node, const char *name); /* on D */
enum result_code create_container(struct fake *f, struct container *c);
enum result_code move_container(struct fake *f, const char *name, unsigned char node);
/* One dataset, or none (0), on that node; with container "c" on D. */
struct composition composition(unsigned char dataset, unsigned char node, bool container); /* 0 = without the dataset */
enum result_code compose_all(struct fake *f, unsigned char dataset, unsigned char node, bool container);

enum reason_code reason(struct fake *f); /* of D */
enum reason_code container_reason(struct fake *f, const char *name);
const struct dataset *listed(struct fake *f); /* D, as users see it */
