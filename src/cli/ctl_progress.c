/* How far a move came, while --wait waits: one line that is drawn again and again on a terminal, else a
 * line now and then. On standard error, as everything that is said about waiting. */
#include "cli/ctl_progress.h"

#include "base/now.h"
#include "base/str.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REDRAW_US (USEC_PER_SEC / 2)
#define LINE_US (5 * USEC_PER_SEC)
#define COLUMNS 80u

static size_t columns(void)
{
    struct winsize w;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : COLUMNS;
}

void ctl_progress_init(struct ctl_progress *p)
{
    *p = (struct ctl_progress){.terminal = isatty(STDOUT_FILENO) && isatty(STDERR_FILENO)};
}

bool ctl_progress_is_due(const struct ctl_progress *p)
{
    return now_os().mono_us >= p->next_us;
}

void ctl_progress_clear(struct ctl_progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}

void ctl_progress_show(struct ctl_progress *p, const json_t *transfer)
{
    p->next_us = now_os().mono_us + (p->terminal ? REDRAW_US : LINE_US);
    if (!json_is_object(transfer)) {
        ctl_progress_clear(p);
        return;
    }
    struct text_progress far = ctl_transfer_progress(transfer);
    CLEANUP_FREE char *text =
        text_format_progress(&far, p->terminal ? columns() - 1 : 0); /* the last column would wrap */
    if (p->terminal)
        fprintf(stderr, "\r%s\033[K", text);
    else if (!str_equal_null(text, p->said))
        fprintf(stderr, "copying: %s\n", text);
    (void)fflush(stderr);
    p->drawn = p->terminal;
    free(p->said);
    p->said = steal(&text);
}

void ctl_progress_done(struct ctl_progress *p)
{
    ctl_progress_clear(p);
    free(p->said);
    *p = (struct ctl_progress){0};
}
