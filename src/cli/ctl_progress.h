/* Shows on standard error how far a move came. */
#pragma once

#include "cli/ctl.h"

struct ctl_progress {
    bool terminal;    /* one line, drawn again; else lines */
    bool drawn;       /* that line stands there now */
    uint64_t next_us; /* when something may be shown again (now_os().mono_us) */
    char *said;       /* last; owned */
};

void ctl_progress_init(struct ctl_progress *p);
bool ctl_progress_is_due(const struct ctl_progress *p);
/* `transfer` as the API says it; NULL or null: there is none. */
void ctl_progress_show(struct ctl_progress *p, const json_t *transfer);
/* Takes the line away, so that something else can be said. */
void ctl_progress_clear(struct ctl_progress *p);
void ctl_progress_done(struct ctl_progress *p); /* clears, and frees */
