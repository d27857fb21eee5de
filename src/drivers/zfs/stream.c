/* Sending and receiving.
 *
 * A whole stream is received into <dataset>.incoming, which takes the dataset's name when it is complete: an older replica
 * stays until then. An increment is received onto the replica as it is; ZFS itself takes it whole or not at all. Either way
 * a snapshot counts only when it is held, and it is held after its guid was compared with the sender's. The hold is a
 * transaction later than the receive's: when it has returned, both are on disk.
 *
 * Where ZFS can continue a broken receive (recv -s), what has arrived is kept, and a note beside the mark says what of. */
#include "drivers/zfs/zfs.h"

#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#define NOTE "incoming"
#define NOTE_MAX 512
#define LOCK_TRIES 50 /* whoever only looks holds the lock for a moment */
#define LOCK_STEP_US 2000u

/* ---- the note: snapshot, identity, base ("-" = whole) ---- */

struct note {
    char snapshot[SNAPSHOT_NAME_SIZE], base[SNAPSHOT_NAME_SIZE];
    char identity[24];
};

static struct err *note_write(int dir, const struct stream_spec *s)
{
    CLEANUP_FREE char *text = xasprintf("%s %s %s\n", s->snapshot, s->identity, s->base ? s->base : "-");

    return file_replace(dir, NOTE, text, strlen(text));
}

/* *ret_there false: there is none, or not one of ours. */
static struct err *note_read(int dir, struct note *ret, bool *ret_there)
{
    CLEANUP_FREE char *text = NULL;

    TRY(file_read(dir, NOTE, NOTE_MAX, &text));
    *ret_there = text && sscanf(text, "%63s %23s %63s", ret->snapshot, ret->identity, ret->base) == 3;
    return NULL;
}

struct err *zfs_forget_receive(int dir)
{
    return file_remove(dir, NOTE);
}

/* ---- one at a time: a receive, or reading a snapshot ---- */

bool zfs_is_locked(int dir)
{
    CLEANUP_CLOSE int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static bool lock(int dir)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(dir, LOCK_EX | LOCK_NB) == 0)
            return true;
        (void)usleep(LOCK_STEP_US);
    }
    return false;
}

struct err *zfs_lock(const struct zfs_pool *p, const struct uuid *dataset, int *ret_dir)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(dir_open(p->marks, UUID_STR(dataset), /* create= */ true, 0700, &dir));
    if (!lock(dir))
        return err_new(ERR_BUSY, "another snapshot of it is being received or compared");
    *ret_dir = steal_fd(&dir);
    return NULL;
}

/* ---- what may be overwritten ---- */

/* The only place that decides it: what is received takes the place of a replica, or of a volume that this node released. */
static struct err *check_replaceable(int dir, const struct zfs_fs *f)
{
    struct volume_mark m;

    TRY(mark_read(dir, &m));
    if (m.state == MARK_OWNED || m.state == MARK_PROMOTING)
        return err_new(ERR_CONFLICT, "this node owns the dataset: nothing is received onto it");
    if (!f || f->role == ZFS_ROLE_REPLICA || f->role == ZFS_ROLE_NONE || f->role == ZFS_ROLE_MAKING)
        return NULL;
    if (f->role == ZFS_ROLE_VOLUME && m.state == MARK_RELEASED)
        return NULL;
    return err_new(ERR_CONFLICT, "%s holds data that this node never released: nothing is received onto it", f->name);
}

static struct err *destroy_incoming(const struct zfs_pool *p, const struct zfs_listing *l, const char *incoming)
{
    const struct zfs_fs *f = zfs_listing_find(l, incoming);

    return f ? zfs_destroy_fs(p, f) : NULL;
}

/* ---- the last steps ---- */

static struct err *guid_of(const struct zfs_pool *p, const char *full, char **ret)
{
    CLEANUP_EXEC struct exec_result r = {0};

    TRY(zfs_run(p, ZFS("get", "-Hp", "-o", "value", "guid", full), &r));
    *ret = xstrndup(r.out, strcspn(r.out, "\n"));
    return NULL;
}

static struct err *hold(const struct zfs_pool *p, const char *full)
{
    return zfs_run(p, ZFS("hold", ZFS_TAG, full), NULL);
}

/* Gives the complete <dataset>.incoming the dataset's name; what had it goes. May be repeated. */
static struct err *move_in(const struct zfs_pool *p, const struct uuid *dataset, int dir)
{
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *incoming = zfs_incoming(p, dataset);

    TRY(zfs_look_all(p, &l));
    const struct zfs_fs *old = zfs_listing_find(&l, fs);

    TRY(check_replaceable(dir, old)); /* again: long after the first time */
    if (old) {
        TRY(zfs_unmount(p, dataset));
        TRY(zfs_destroy_fs(p, old));
    }
    return zfs_run(p, ZFS("rename", incoming, fs), NULL);
}

static struct err *accept_whole(const struct zfs_pool *p, const struct uuid *dataset, int dir, const char *snapshot)
{
    CLEANUP_FREE char *incoming = zfs_incoming(p, dataset), *full = xasprintf("%s@%s", incoming, snapshot);

    TRY(hold(p, full));
    TRY(zfs_set(p, incoming, (const char *const[]){"canmount=noauto", ZFS_ROLE "=replica", NULL}));
    TRY(move_in(p, dataset, dir));
    return zfs_forget_receive(dir);
}

/* ---- leftovers ---- */

/* The snapshot that did not count is the state of the replica: back to the newest that does. */
static struct err *back(const struct zfs_pool *p, const struct uuid *dataset, const struct zfs_fs *f)
{
    size_t i = f->n_snapshots;

    while (i > 0 && !f->snapshots[i - 1].held)
        i--;
    return i ? zfs_rollback(p, dataset, f, f->snapshots[i - 1].name) : NULL;
}

/* A whole stream of which only the new name is missing is finished, if nothing else is here: it may be the only copy. */
static struct err *tidy_locked(const struct zfs_pool *p, const struct uuid *dataset, int dir)
{
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *incoming = zfs_incoming(p, dataset);
    struct note note;
    bool noted;

    TRY(note_read(dir, &note, &noted));
    TRY(zfs_look_all(p, &l));
    if (zfs_view_is_there(p, &l, dataset))
        TRY(zfs_view_remove(p, dataset));
    const struct zfs_fs *f = zfs_listing_find(&l, fs), *in = zfs_listing_find(&l, incoming);
    const struct zfs_snapshot *s = noted ? zfs_fs_snapshot(f, note.snapshot) : NULL;

    if (in && in->role == ZFS_ROLE_REPLICA && !f)
        TRY(move_in(p, dataset, dir));
    else
        TRY(destroy_incoming(p, &l, incoming));
    if (f && f->token)
        TRY(zfs_run(p, ZFS("receive", "-A", fs), NULL));
    if (s && !s->held && f->role == ZFS_ROLE_REPLICA)
        TRY(back(p, dataset, f));
    return zfs_forget_receive(dir);
}

struct err *zfs_tidy(const struct zfs_pool *p, const struct uuid *dataset)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(dir_open(p->marks, UUID_STR(dataset), /* create= */ false, 0700, &dir));
    if (dir < 0 || !lock(dir))
        return NULL; /* nothing, or at work */
    return tidy_locked(p, dataset, dir);
}

/* ---- receiving ---- */

struct receive {
    const struct zfs_pool *p;
    const struct uuid *dataset;
    const struct stream_spec *stream;
    int dir;
    char *fs, *incoming;
};

static void receive_done(struct receive *r)
{
    mem_closep(&r->dir);
    free(r->fs);
    free(r->incoming);
}
#define CLEANUP_RECEIVE CLEANUP(receive_done)

/* The snapshot that is complete, but was not accepted when its receiver was killed. *ret_there: it is here now. */
static struct err *accept_earlier(const struct receive *r, const struct zfs_listing *l, bool *ret_there)
{
    const struct zfs_fs *f = zfs_listing_find(l, r->fs), *in = zfs_listing_find(l, r->incoming);
    const struct zfs_snapshot *s = zfs_fs_snapshot(f, r->stream->snapshot),
                              *new = zfs_fs_snapshot(in, r->stream->snapshot);
    CLEANUP_FREE char *full = xasprintf("%s@%s", r->fs, r->stream->snapshot);
    uint64_t wanted;

    *ret_there = s && s->held;
    if (*ret_there)
        return NULL;
    if (!zfs_number_parse(r->stream->identity, &wanted))
        return err_new(ERR_CORRUPT, "the sender calls the snapshot %s, which is no guid of ZFS", r->stream->identity);
    if (s && s->guid == wanted) {
        TRY(hold(r->p, full));
        *ret_there = true;
        return zfs_forget_receive(r->dir);
    }
    if (!new || new->guid != wanted || new->held)
        return NULL;
    *ret_there = true;
    return accept_whole(r->p, r->dataset, r->dir, r->stream->snapshot);
}

/* Makes the base the state of the replica. */
static struct err *ready_base(const struct receive *r, const struct zfs_fs *f)
{
    const struct zfs_snapshot *base = zfs_fs_snapshot(f, r->stream->base);

    if (!base || !base->held)
        return err_new(ERR_NOT_FOUND, "its base %s is not here", r->stream->base);
    if (r->stream->from && f->token)
        return NULL;
    bool newest = base == &f->snapshots[f->n_snapshots - 1];

    if (f->role == ZFS_ROLE_REPLICA && newest && !f->token)
        return NULL;
    TRY(zfs_rollback(r->p, r->dataset, f, r->stream->base));
    return zfs_set(
        r->p, r->fs,
        (const char *const[]){"readonly=on", "refquota=none", ZFS_ROLE "=replica", NULL});
}

static struct err *ready(const struct receive *r, const struct zfs_listing *l)
{
    const struct zfs_fs *f = zfs_listing_find(l, r->fs), *in = zfs_listing_find(l, r->incoming);
    bool goes_on = r->stream->from && in && in->token;

    TRY(check_replaceable(r->dir, f));
    if (zfs_view_is_there(r->p, l, r->dataset))
        TRY(zfs_view_remove(r->p, r->dataset));
    if (r->stream->base)
        TRY(ready_base(r, f));
    if (in && (r->stream->base || !goes_on))
        TRY(destroy_incoming(r->p, l, r->incoming));
    return note_write(r->dir, r->stream);
}

/* Checks and accepts what arrived. */
static struct err *accept(const struct receive *r, const char *target)
{
    CLEANUP_FREE char *got = NULL;

    TRY(guid_of(r->p, target, &got));
    if (!streq(got, r->stream->identity))
        return err_new(ERR_CORRUPT, "what arrived is snapshot %s, not %s: send it again", got, r->stream->identity);
    if (!r->stream->base)
        return accept_whole(r->p, r->dataset, r->dir, r->stream->snapshot);
    TRY(hold(r->p, target));
    return zfs_forget_receive(r->dir);
}

/* After an error: only what can be continued stays. */
static void clean_up(const struct receive *r)
{
    CLEANUP_LISTING struct zfs_listing l = {0};
    struct err *e = zfs_look_all(r->p, &l);
    const struct zfs_fs *f = e ? NULL : zfs_listing_find(&l, r->stream->base ? r->fs : r->incoming);

    err_free(e);
    if (f && f->token)
        return;
    /* What is left goes now or at the next look: it is not part of the answer. */
    err_free(tidy_locked(r->p, r->dataset, r->dir));
}

static struct err *run_receive(const struct receive *r, const char *target, int fd)
{
    const char *argv[] = {"zfs", "receive", "-u", r->p->can.resume ? "-s" : target, r->p->can.resume ? target : NULL, NULL};
    CLEANUP_EXEC struct exec_result result = {0};

    TRY(exec_run(&(struct exec_request){.argv = argv, .stdin_fd = fd, .any_exit = true}, &result));
    if (!result.status)
        return NULL;
    return err_new(zfs_error_code(result.err_text), "zfs receive: %s", result.err_text);
}

struct err *zfs_receive_stream(void *cookie, const struct uuid *dataset, const struct stream_spec *stream, int fd)
{
    struct zfs_pool *p = cookie;
    CLEANUP_RECEIVE struct receive r = {.p = p,
                                        .dataset = dataset,
                                        .stream = stream,
                                        .dir = -1,
                                        .fs = zfs_name(p, dataset),
                                        .incoming = zfs_incoming(p, dataset)};
    CLEANUP_FREE char *target = xasprintf("%s@%s", stream->base ? r.fs : r.incoming, stream->snapshot);
    CLEANUP_LISTING struct zfs_listing l = {0};
    bool there;

    TRY(zfs_lock(p, dataset, &r.dir));
    TRY(zfs_look_all(p, &l));
    TRY(accept_earlier(&r, &l, &there));
    if (there)
        return err_new(ERR_EXISTS, "it is here already");
    TRY(ready(&r, &l));
    struct err *e = run_receive(&r, target, fd);

    if (!e)
        e = accept(&r, target);
    if (e)
        clean_up(&r);
    return e;
}

struct err *zfs_stream_point(void *cookie, const struct uuid *dataset, struct stream_point *ret_point)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *incoming = zfs_incoming(p, dataset);
    CLEANUP_CLOSE int dir = -1;
    struct note note;
    bool noted = false;

    if (!p->can.resume)
        return NULL;
    TRY(dir_open(p->marks, UUID_STR(dataset), /* create= */ false, 0700, &dir));
    if (dir >= 0)
        TRY(note_read(dir, &note, &noted));
    if (!noted)
        return NULL;
    TRY(zfs_look_all(p, &l));
    bool whole = streq(note.base, "-");
    const struct zfs_fs *f = zfs_listing_find(&l, whole ? incoming : fs);

    if (!f || !f->token)
        return NULL;
    *ret_point = (struct stream_point){.snapshot = xstrdup(note.snapshot),
                                       .identity = xstrdup(note.identity),
                                       .base = xstrdup(whole ? "" : note.base),
                                       .token = xstrdup(f->token)};
    return NULL;
}

/* ---- sending ---- */

/* A token comes from the peer, and may name any snapshot of this machine. */
static struct err *check_token(const struct zfs_pool *p, const char *token, const char *snapshot)
{
    CLEANUP_EXEC struct exec_result r = {0};

    if (!zfs_token_is_valid(token))
        return err_new(ERR_INVALID, "the receiver wants to continue from what is no resume token");
    TRY(zfs_run(p, ZFS("send", "-n", "-v", "-t", token), &r));
    if (zfs_token_is_for(r.out, snapshot) || zfs_token_is_for(r.err_text, snapshot))
        return NULL;
    return err_new(ERR_CONFLICT, "the receiver wants to continue another stream than that of %s", snapshot);
}

/* Options and names of a stream from its beginning; `base` may be NULL. */
static void add_source(const struct zfs_pool *p, const char **argv, size_t n, const char *base, const char *full)
{
    if (p->can.compressed)
        argv[n++] = "-c"; /* blocks as they are on disk */
    if (base) {
        argv[n++] = "-i";
        argv[n++] = base;
    }
    argv[n] = full;
}

struct err *zfs_send_stream(void *cookie, const struct uuid *dataset, const struct stream_spec *stream, int fd,
                            const atomic_bool *cancel)
{
    struct zfs_pool *p = cookie;
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *full = xasprintf("%s@%s", fs, stream->snapshot);
    CLEANUP_FREE char *base = stream->base ? xasprintf("@%s", stream->base) : NULL;
    CLEANUP_EXEC struct exec_result r = {0};
    const char *argv[8] = {"zfs", "send"};

    if (stream->from && stream->from->token) {
        TRY(check_token(p, stream->from->token, full));
        argv[2] = "-t";
        argv[3] = stream->from->token;
    } else {
        add_source(p, argv, 2, base, full);
    }
    TRY(exec_run(&(struct exec_request){.argv = argv, .stdout_fd = fd, .cancel = cancel, .any_exit = true}, &r));
    if (!r.status)
        return NULL;
    return err_new(zfs_error_code(r.err_text), "zfs send: %s", r.err_text);
}

/* How long a whole snapshot will be where the programs cannot tell: compression and holes aside. An increment may be anything. */
static struct err *size_of_snapshot(const struct zfs_pool *p, const char *full, uint64_t *ret_bytes)
{
    CLEANUP_EXEC struct exec_result r = {0};

    TRY(zfs_run(p, ZFS("get", "-Hp", "-o", "value", "referenced", full), &r));
    r.out[strcspn(r.out, "\n")] = '\0';
    if (!zfs_number_parse(r.out, ret_bytes))
        *ret_bytes = 0;
    return NULL;
}

struct err *zfs_stream_size(void *cookie, const struct uuid *dataset, const struct stream_spec *stream,
                            uint64_t *ret_bytes)
{
    struct zfs_pool *p = cookie;
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *full = xasprintf("%s@%s", fs, stream->snapshot);
    CLEANUP_FREE char *base = stream->base ? xasprintf("@%s", stream->base) : NULL;
    CLEANUP_EXEC struct exec_result r = {0};
    const char *argv[10] = {"zfs", "send", "-n", "-v", "-P"};

    *ret_bytes = 0;
    if (!p->can.estimate)
        return base ? NULL : size_of_snapshot(p, full, ret_bytes);
    add_source(p, argv, 5, base, full);
    TRY(zfs_run(p, argv, &r));
    if (!zfs_stream_size_parse(r.out, ret_bytes) && !zfs_stream_size_parse(r.err_text, ret_bytes))
        *ret_bytes = 0; /* it is only for people */
    return NULL;
}
