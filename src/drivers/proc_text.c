#include "drivers/proc_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool proc_map_parse(const char *line, char ret_range[PROC_RANGE_SIZE], unsigned *ret_major, unsigned *ret_minor)
{
    char range[PROC_RANGE_SIZE];
    unsigned major, minor;

    if (sscanf(line, "%63s %*s %*s %x:%x", range, &major, &minor) != 3)
        return false;
    memcpy(ret_range, range, sizeof(range));
    *ret_major = major;
    *ret_minor = minor;
    return true;
}

unsigned proc_stat_flags(const char *text)
{
    const char *after = strrchr(text, ')');
    unsigned flags;

    return after && sscanf(after, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 ? flags : 0;
}

uint64_t proc_status_permitted(const char *text)
{
    const char *caps = strstr(text, "\nCapPrm:\t");

    return caps ? strtoull(caps + 9, NULL, 16) : 0;
}

unsigned long proc_fdinfo_flags(const char *text)
{
    const char *flags = strstr(text, "flags:\t");

    return flags ? strtoul(flags + 7, NULL, 8) : 0;
}
