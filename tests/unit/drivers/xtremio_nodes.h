/* The two nodes when their volumes are on the array of tests/arrays, and the array as tests see it. */
#pragma once

#include "drivers/xtremio/xtremio.h"
#include "node.h"

#define A (&nodes[0])
#define B (&nodes[1])
#define SIZE (64ull << 20)

/* For a test's setup: an array without volumes, and nodes that know it. */
int fresh(void **state);
/* For its teardown: nothing that must not happen has happened, and nothing is left. */
int settled(void **state);
#define WITH_ARRAY(test) cmocka_unit_test_setup_teardown(test, fresh, settled)

int violations(void); /* so many; they are printed */
size_t volumes(void);
void name_of(const struct uuid *id, char ret[XTREMIO_VOLUME_NAME_SIZE]);
void setting(const char *name, int value);
/* Paths that the host has to the volume; *ret_map (may be NULL): is there a map? */
size_t paths(const char *host, const struct uuid *id, bool *ret_map);

/* Opens a node with other options; an error is returned. */
struct err *open_with(struct node *n, json_t *changes);
