#include "model/fence.h"

#include "base/mem.h"
#include "base/str.h"

struct fence *fence_copy(const struct fence *f)
{
    struct fence *c = xmemdup(f, sizeof(*f));

    c->who = xstrdup(f->who);
    c->why = xstrdup(f->why);
    return c;
}

struct fence *fence_free(struct fence *f)
{
    if (!f)
        return NULL;
    free(f->who);
    free(f->why);
    free(f);
    return NULL;
}
