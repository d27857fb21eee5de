#include "model/volume_call.h"

#include "base/mem.h"

#include <string.h>

void volume_call_done(struct volume_call *c)
{
    free(c->name);
    free(c->mount);
    metadata_done(&c->metadata);
    *c = (struct volume_call){0};
}

void volume_call_copy(struct volume_call *to, const struct volume_call *from)
{
    *to = *from;
    to->name = xstrdup_null(from->name);
    to->mount = xstrdup_null(from->mount);
    to->metadata = (struct metadata){0};
    metadata_copy(&to->metadata, &from->metadata);
}

void volume_answer_done(struct volume_answer *a)
{
    free(a->text);
    *a = (struct volume_answer){0};
}

void volume_use_done(struct volume_use *u)
{
    free(u->name);
    free(u->mount);
    *u = (struct volume_use){0};
}

void volume_entry_done(struct volume_entry *v)
{
    free(v->name);
    free(v->home_host);
    free(v->profile);
    free(v->holder_text);
    reason_done(&v->reason);
    *v = (struct volume_entry){0};
}

void volume_entry_copy(struct volume_entry *to, const struct volume_entry *from)
{
    *to = *from;
    to->name = xstrdup_null(from->name);
    to->home_host = xstrdup_null(from->home_host);
    to->profile = xstrdup_null(from->profile);
    to->holder_text = xstrdup_null(from->holder_text);
    reason_copy(&to->reason, &from->reason);
}

const char *volume_code_name(enum volume_code c)
{
    static const char *const names[VOLUME_CODE_MAX] = {
        [VOLUME_OK] = "ok",
        [VOLUME_CREATED] = "created",
        [VOLUME_NOT_FOUND] = "not-found",
        [VOLUME_HELD] = "held",
        [VOLUME_RELEASING] = "releasing",
        [VOLUME_INVALID] = "invalid",
        [VOLUME_FAILED] = "failed",
        [VOLUME_AWAY] = "away",
    };

    return c >= 0 && c < VOLUME_CODE_MAX ? names[c] : "?";
}

static size_t characters(const char *utf8)
{
    size_t n = 0;

    for (; *utf8; utf8++)
        n += (*utf8 & 0xc0) != 0x80;
    return n;
}

static bool is_part(const char *text)
{
    return characters(text) <= METADATA_MAX_CHARS && !strchr(text, '\n');
}

char *volume_create_check(const struct volume_call *c)
{
    bool named = metadata_get(&c->metadata, "name") != NULL;

    if (!c->name || !*c->name || !is_part(c->name))
        return xasprintf("a volume's name has 1 to %d characters, in one line", METADATA_MAX_CHARS);
    if (named && strcmp(metadata_get(&c->metadata, "name"), c->name) != 0)
        return xasprintf("the metadata say another name than \"%s\"", c->name);
    if (c->metadata.n + !named > METADATA_MAX_ENTRIES)
        return xasprintf("a volume has at most %d metadata, its name among them", METADATA_MAX_ENTRIES);
    for (size_t i = 0; i < c->metadata.n; i++) {
        const struct metadata_entry *m = &c->metadata.entries[i];
        if (!*m->key || !is_part(m->key))
            return xasprintf("a key of metadata has 1 to %d characters, in one line", METADATA_MAX_CHARS);
        if (characters(m->value) > METADATA_MAX_CHARS)
            return xasprintf("the value of metadata \"%s\" has more than %d characters", m->key, METADATA_MAX_CHARS);
    }
    if (!c->maximum_size)
        return NULL;
    if (c->maximum_size < DATASET_MIN_SIZE || c->maximum_size > INT64_MAX || c->maximum_size % DATASET_SIZE_STEP)
        return xasprintf("the size %llu is not possible: it must be at least %u and a multiple of %u bytes",
                         (unsigned long long)c->maximum_size, DATASET_MIN_SIZE, DATASET_SIZE_STEP);
    return NULL;
}
