/* A folder with a /sys and a /dev of a test's own, in which a driver looks for its disks. */
#pragma once

#include "base/mem.h"

/* Made by tree_make(). */
extern char tree_root[];

/* 0, or 1 when it cannot be made. */
int tree_make(void);
/* A command of the shell that must succeed. */
void tree_run(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* For cmocka_unit_test_setup_teardown(): before a test it has sys/block, dev and etc/iscsi, all empty; after it, it is gone. */
int tree_empty(void **state);
int tree_gone(void **state);
