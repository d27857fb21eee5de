/* Receiving: a stream from another node becomes a snapshot.
 *
 * The commands are applied to a working subvolume, which is in the dataset's quota group from its first moment and has the
 * sender's identity before the first byte of content. The one read-only snapshot that is taken of it at the end inherits the
 * identity, flushes, commits, and appears in `snap/` all in one: before it there is nothing that is listed, after it
 * everything is on disk. The working subvolume is kept for the next increment (NEXT). Checkpoints are writable snapshots of the working subvolume between two commands; the kernel takes
 * the identity away from those, so a half-applied subvolume is never taken for the whole. */
#include "drivers/btrfs/btrfs.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/btrfs/apply.h"
#include "drivers/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FOLDER (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define BUFFER_BYTES (1u << 20)
#define CHECKPOINT_BYTES (1ull << 30)
#define CHECKPOINT_US (10 * (uint64_t)USEC_PER_SEC)
#define WORK "work"

struct receive_pace receive_pace = {CHECKPOINT_BYTES, CHECKPOINT_US};

struct intake {
    const struct pool *p;
    const struct stream_spec *spec;
    uint64_t group;
    struct receive_try try;
    int base, work;
    struct point point; /* what it is, and the newest checkpoint; offset 0 = there is none */
    uint64_t point_us; /* when the newest one was begun, or the stream */
    uint64_t took_us;  /* until it was on disk; before the first one, what that is taken to last */
    struct send_stream stream;
    struct applier *applier;
    struct stream_hash *hash;
    uint8_t *buf;
    size_t have;
};

/* ---- checkpoints ---- */

static struct err *take_checkpoint(struct intake *in)
{
    struct point next = in->point;
    char text[POINT_TEXT_MAX];

    next.offset = in->stream.offset;
    next.version = in->stream.version;
    stream_hash_digest(in->hash, &next.hash_low, &next.hash_high);
    stream_hash_save(in->hash, &next.state);
    CLEANUP_FREE char *name = try_point_name(next.offset), *note = try_note_name(next.offset);

    point_format(&next, text);
    TRY(file_replace(in->try.fd, note, text, strlen(text)));
    TRY(subvolume_snapshot(in->work, in->try.fd, name, /* read_only= */ false, in->group));
    /* From here on this one counts; of the one before, what cannot be deleted now goes with the folder. */
    CLEANUP_FREE char *old = try_point_name(in->point.offset), *old_note = try_note_name(in->point.offset);

    if (in->point.offset) {
        err_free(subvolume_delete(in->try.fd, old));
        (void)unlinkat(in->try.fd, old_note, 0);
    }
    in->point = next;
    return NULL;
}

static bool has_new(const struct intake *in)
{
    return in->stream.phase == SEND_AT_BODY && in->stream.offset > in->point.offset;
}

/* One that cannot be taken is only missed if the stream breaks. */
static void checkpoint(struct intake *in)
{
    uint64_t began = now_os().mono_us;
    struct err *e = take_checkpoint(in);

    in->point_us = began;
    in->took_us = now_os().mono_us - began;
    if (e)
        log_debug("no checkpoint of snapshot %s: %s", in->spec->snapshot, e->text);
    err_free(e);
}

/* A checkpoint counts once it is on disk, and that may take seconds: all that was written since the last one is flushed by it. So
 * it is begun that much earlier, as long as half of the time is left for receiving. */
static void checkpoint_if_due(struct intake *in)
{
    uint64_t early = in->took_us < receive_pace.us / 2 ? in->took_us : receive_pace.us / 2;

    if (has_new(in) && (in->stream.offset - in->point.offset >= receive_pace.bytes ||
                        now_os().mono_us - in->point_us >= receive_pace.us - early))
        checkpoint(in);
}

/* ---- the stream ---- */

/* What it is, is known: the commands of the content may come. */
static struct err *begin_content(struct intake *in)
{
    struct btrfs_ioctl_received_subvol_args a = {.stransid = in->point.ctransid};

    memcpy(a.uuid, in->point.identity.b, sizeof(a.uuid));
    if (ioctl(in->work, BTRFS_IOC_SET_RECEIVED_SUBVOL, &a) < 0)
        return btrfs_error(errno, "cannot set the identity of a snapshot");
    in->applier = applier_new(&(struct apply_target){in->work, in->base, in->point.identity, in->point.base_identity});
    return NULL;
}

static struct err *take_subvolume(struct intake *in, const struct send_command *c)
{
    if ((c->type == SEND_SNAPSHOT) != (in->base >= 0))
        return err_new(ERR_CORRUPT, "the stream is %s, which was not agreed",
                       in->base >= 0 ? "whole, not an increment" : "an increment, not whole");
    if (!streq(UUID_STR(&c->uuid), in->spec->identity))
        return err_new(ERR_CORRUPT, "what arrived is snapshot %s, not %s: send it again", UUID_STR(&c->uuid),
                       in->spec->identity);
    if (in->base >= 0 && !uuid_eq(&c->clone_uuid, &in->point.base_identity))
        return err_new(ERR_CORRUPT, "what arrived is an increment from snapshot %s, not from %s: send it again",
                       UUID_STR(&c->clone_uuid), UUID_STR(&in->point.base_identity));
    in->point.identity = c->uuid;
    in->point.ctransid = c->ctransid;
    return begin_content(in);
}

static struct err *take_command(struct intake *in, const struct send_command *c)
{
    switch (c->type) {
    case SEND_HEADER:
    case SEND_END:
        return NULL;
    case SEND_SUBVOL:
    case SEND_SNAPSHOT:
        return take_subvolume(in, c);
    default:
        return applier_apply(in->applier, c);
    }
}

/* All commands that are whole. */
static struct err *take_bytes(struct intake *in)
{
    struct send_command c;
    size_t at = 0, used = 1;

    while (used) {
        TRY(send_stream_next(&in->stream, in->buf + at, in->have - at, &used, &c));
        if (used)
            TRY(take_command(in, &c));
        stream_hash_update(in->hash, in->buf + at, used); /* while the cache has it */
        at += used;
    }
    in->have -= at;
    memmove(in->buf, in->buf + at, in->have);
    return NULL;
}

/* *ret_broke: it is the connection's fault, not the stream's. */
static struct err *take_stream(struct intake *in, int fd, bool *ret_broke)
{
    for (;;) {
        ssize_t n = read(fd, in->buf + in->have, BUFFER_BYTES - in->have);

        if (n < 0 && errno == EINTR)
            continue;
        *ret_broke = n < 0;
        if (n < 0)
            return err_errno(errno, "the stream broke off behind byte %" PRIu64, in->stream.offset);
        if (n == 0 && in->stream.phase == SEND_AT_END)
            return NULL;
        if (n == 0)
            return err_new(ERR_CORRUPT, "the stream ends behind byte %" PRIu64 ", without its end", in->stream.offset);
        in->have += (size_t)n;
        TRY(take_bytes(in));
        checkpoint_if_due(in);
    }
}

/* ---- before and after ---- */

static void name_it(struct intake *in)
{
    struct point *p = &in->point;

    (void)snprintf(p->snapshot, sizeof(p->snapshot), "%s", in->spec->snapshot);
    (void)snprintf(p->base, sizeof(p->base), "%s", in->spec->base ? in->spec->base : "");
}

/* What the last receive worked on is the same as the snapshot it ended with: if that is the base now, the stream can be
 * applied to it at once. A writer may be standing still for this one. */
static bool take_next(const struct intake *in, int dataset)
{
    CLEANUP_CLOSE int next = openat(dataset, NEXT, FOLDER);
    struct subvolume_facts facts;
    struct err *e = next < 0 ? NULL : subvolume_look(next, &facts);
    bool same = next >= 0 && !e && !facts.read_only && uuid_eq(&facts.identity, &in->point.base_identity);

    err_free(e);
    return same && renameat(dataset, NEXT, in->try.fd, WORK) == 0;
}

/* From the checkpoint, from the base, or empty. */
static struct err *make_work(const struct intake *in, int dataset, int from)
{
    TRY(subvolume_delete(dataset, NEXT));
    if (from < 0 && in->base < 0)
        return subvolume_create(in->try.fd, WORK, in->group);
    return subvolume_snapshot(from >= 0 ? from : in->base, in->try.fd, WORK, /* read_only= */ false, in->group);
}

/* The working subvolume. */
static struct err *begin(struct intake *in, int dataset)
{
    CLEANUP_CLOSE int from = -1;
    struct uuid base_identity = in->point.base_identity;

    if (in->spec->from) {
        TRY(try_continue(dataset, in->spec, &in->try, &in->point));
        if (!uuid_eq(&in->point.base_identity, &base_identity) ||
            !stream_hash_restore(in->hash, &in->point.state, in->point.offset))
            return err_new(ERR_CONFLICT, "what was received before is an increment from another %s", in->spec->base);
        send_stream_resume(&in->stream, in->point.version, in->point.offset);
    } else {
        TRY(try_begin(dataset, in->spec->snapshot, &in->try));
        send_stream_init(&in->stream);
    }
    TRY(tries_remove(dataset, in->try.name, /* all= */ false));
    TRY(quota_prepare(in->p, in->group));
    if (in->spec->from) {
        CLEANUP_FREE char *point = try_point_name(in->point.offset);

        from = openat(in->try.fd, point, FOLDER);
        if (from < 0)
            return btrfs_error(errno, "cannot open what was received before");
    }
    if (from >= 0 || in->base < 0 || !take_next(in, dataset))
        TRY(make_work(in, dataset, from));
    in->work = openat(in->try.fd, WORK, FOLDER);
    if (in->work < 0)
        return btrfs_error(errno, "cannot open a new subvolume");
    in->point_us = now_os().mono_us;
    in->took_us = receive_pace.us / 2;
    return in->spec->from ? begin_content(in) : NULL;
}

static struct err *receive(struct intake *in, int dataset, int fd, bool *ret_broke)
{
    CLEANUP_CLOSE int snap = -1;

    name_it(in);
    if (in->spec->base) {
        struct subvolume_facts base;

        TRY(subvolume_look(in->base, &base));
        in->point.base_identity = base.identity;
    }
    TRY(dir_open(dataset, "snap", /* create= */ true, 0700, &snap));
    TRY(begin(in, dataset));
    struct err *e = take_stream(in, fd, ret_broke);

    if (*ret_broke && has_new(in))
        checkpoint(in);
    in->applier = applier_free(in->applier); /* closes its files */
    if (!e)
        e = subvolume_snapshot(in->work, snap, in->spec->snapshot, /* read_only= */ true, in->group);
    if (!e)
        (void)renameat(in->try.fd, WORK, dataset, NEXT);
    return e;
}

struct err *receive_stream(const struct pool *p, int dataset, uint64_t group, int base, const struct stream_spec *stream,
                           int fd)
{
    struct intake *in = xcalloc(1, sizeof(*in));
    bool broke = false;

    *in = (struct intake){.p = p,
                          .spec = stream,
                          .group = group,
                          .try = {.fd = -1},
                          .base = base,
                          .work = -1,
                          .hash = stream_hash_new(),
                          .buf = xmalloc(BUFFER_BYTES)};
    struct err *e = receive(in, dataset, fd, &broke);

    in->applier = applier_free(in->applier);
    mem_closep(&in->work);
    /* What is left of the try goes, now or at the next look: it is not part of the answer. */
    if (in->try.fd >= 0)
        err_free(try_end(dataset, &in->try, broke ? in->point.offset : 0));
    in->hash = stream_hash_free(in->hash);
    free(in->buf);
    free(in);
    return e;
}
