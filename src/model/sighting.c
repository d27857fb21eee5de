#include "model/sighting.h"

#include "base/str.h"

void sighting_done(struct sighting *s)
{
    free(s->hosts);
    *s = (struct sighting){0};
}

void sighting_copy(struct sighting *to, const struct sighting *from)
{
    *to = *from;
    to->hosts = xstrdup_null(from->hosts);
}

bool sighting_same(const struct sighting *a, const struct sighting *b)
{
    if (a->present != b->present)
        return false;
    return !a->present || (a->size == b->size && str_equal_null(a->hosts, b->hosts));
}

struct where_attached sighting_where(const char *hosts, const char *own)
{
    struct where_attached w = {.here = str_equal_null(hosts, own)};

    if (w.here) /* a name with a space in it, maybe */
        return w;
    for (const char *h = hosts ? hosts : ""; *h;) {
        size_t n = strcspn(h, " ");

        if (n && n == strlen(own) && strncmp(h, own, n) == 0)
            w.here = true;
        else if (n)
            w.elsewhere = true;
        h += n;
        h += *h == ' ';
    }
    return w;
}
