/* What the kernel writes in /proc/PID, as far as usage.c needs it. Pure; what cannot be understood is 0 or false. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PROC_RANGE_SIZE 64

/* A line of maps, "start-end perms offset major:minor inode path": the range is also the name in map_files. */
bool proc_map_parse(const char *line, char ret_range[PROC_RANGE_SIZE], unsigned *ret_major, unsigned *ret_minor);
/* The flags of a process (PF_*) in its stat. The name before them may hold anything, ") S 1" too. */
unsigned proc_stat_flags(const char *text);
/* The permitted capabilities in status. */
uint64_t proc_status_permitted(const char *text);
/* The flags of open() in fdinfo/N. */
unsigned long proc_fdinfo_flags(const char *text);
