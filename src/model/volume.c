#include "model/volume.h"

#include "base/mem.h"
#include "base/str.h"

const char *storage_kind_name(enum storage_kind k)
{
    return k == STORAGE_ATTACHABLE ? "attachable" : "local";
}

void volume_state_done(struct volume_state *v)
{
    free(v->snapshots);
    free(v->device);
    free(v->hosts);
    *v = (struct volume_state){0};
}

void volume_state_copy(struct volume_state *to, const struct volume_state *from)
{
    *to = *from;
    to->snapshots = NULL;
    to->device = xstrdup_null(from->device);
    to->hosts = xstrdup_null(from->hosts);
    if (from->n_snapshots)
        to->snapshots = xmemdup(from->snapshots, from->n_snapshots * sizeof(*from->snapshots));
}

bool volume_state_has_snapshot(const struct volume_state *v, const char *name)
{
    for (size_t i = 0; i < v->n_snapshots; i++) {
        if (streq(v->snapshots[i], name))
            return true;
    }
    return false;
}

bool volume_state_is_empty(const struct volume_state *v)
{
    return !v->present && !v->mounted && !v->partial && !v->n_snapshots;
}
