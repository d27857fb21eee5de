/* The two nodes when their pools are btrfs. */
#pragma once

#include "node.h"

#define A (&nodes[0])
#define B (&nodes[1])

char *pool_of(const struct node *n); /* where it is mounted; the caller frees it */
char *snapshot_path(const struct node *n, const struct uuid *id, const char *name);
/* On A, mounted. */
struct uuid new_volume(void);
void destroy_everywhere(const struct uuid *id);
/* The snapshot is the same on both, and has the same identity. */
void assert_same(const struct uuid *id, const char *name, const char *when);
/* Mounts the pool with this compression. */
void pool_compress(const struct node *n, const char *how);
/* Nothing is left of receives on B. */
void assert_tidy(const struct uuid *id);
