#include "drivers/mark.h"

#include "base/str.h"
#include "drivers/driver.h"
#include "drivers/durable.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const state_names[MARK_STATE_MAX] = {
    [MARK_NONE] = "none",
    [MARK_OWNED] = "owned",
    [MARK_PROMOTING] = "promoting",
    [MARK_RELEASED] = "released",
};

void mark_format(const struct volume_mark *m, char ret_text[MARK_TEXT_MAX])
{
    (void)snprintf(ret_text, MARK_TEXT_MAX, "flocker-mark 1 %s %" PRIu64 " %" PRIu64 " %s\n",
                   state_names[m->state], m->epoch, m->transfer, *m->snapshot ? m->snapshot : "-");
}

bool mark_parse(const char *text, struct volume_mark *ret_mark)
{
    struct volume_mark m = {0};
    char state[16], snapshot[SNAPSHOT_NAME_SIZE] = "", again[MARK_TEXT_MAX];
    bool found = false;

    if (sscanf(text, "flocker-mark 1 %15s %" SCNu64 " %" SCNu64 " %63s", state, &m.epoch,
               &m.transfer, snapshot) != 4)
        return false;
    for (int i = MARK_OWNED; i < MARK_STATE_MAX; i++) {
        if (streq(state, state_names[i])) {
            m.state = (enum mark_state)i;
            found = true;
        }
    }
    if (!found || !m.epoch)
        return false;
    if (!streq(snapshot, "-")) {
        if (!snapshot_name_is_valid(snapshot))
            return false;
        memcpy(m.snapshot, snapshot, sizeof(snapshot));
    }
    /* One value has one form: this catches signs, leading zeros, overflow, other spaces and
     * trailing bytes. */
    mark_format(&m, again);
    if (!streq(text, again))
        return false;
    *ret_mark = m;
    return true;
}

struct err *mark_read(int dirfd, struct volume_mark *ret_mark)
{
    CLEANUP_FREE char *text = NULL;

    *ret_mark = (struct volume_mark){0};
    if (dirfd < 0)
        return NULL;
    TRY(err_wrap(file_read(dirfd, "mark", MARK_TEXT_MAX, &text), "ownership mark"));
    if (!text)
        return NULL;
    if (!mark_parse(text, ret_mark))
        return err_new(ERR_CORRUPT,
                       "the ownership mark is damaged; nothing is done with this volume "
                       "until it is restored or removed by hand");
    return NULL;
}

struct err *mark_write(int dirfd, const struct volume_mark *m)
{
    char text[MARK_TEXT_MAX];

    mark_format(m, text);
    return err_wrap(file_replace(dirfd, "mark", text, strlen(text)), "ownership mark");
}

struct err *mark_remove(int dirfd)
{
    return err_wrap(file_remove(dirfd, "mark"), "ownership mark");
}
