/* btrfs streams that break off, and go on: at each command, after kills, after power cuts. */
#include "btrfs_nodes.h"
#include "content.h"

#include "base/now.h"
#include "base/str.h"
#include "drivers/btrfs/btrfs.h"
#include "drivers/btrfs/send_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

static bool is_partial(struct node *n, const struct uuid *id)
{
    struct volume_state v;

    ok(storage_observe(n->storage, id, &v));
    bool partial = v.partial;

    volume_state_done(&v);
    return partial;
}

/* ---- streams in memory ---- */

struct stream {
    char *base, *snapshot, *identity; /* base may be NULL */
    char *bytes;
    size_t n;
    size_t *ends; /* of the header and of each command */
    size_t n_ends;
};

static void stream_done(struct stream *s)
{
    free(s->base);
    free(s->snapshot);
    free(s->identity);
    free(s->bytes);
    free(s->ends);
}
#define CLEANUP_STREAM CLEANUP(stream_done)

static void find_ends(struct stream *s)
{
    struct send_stream *p = xcalloc(1, sizeof(*p));
    struct send_command c;
    size_t cap = 0, used = 1;

    send_stream_init(p);
    for (size_t at = 0; used; at += used) {
        ok(send_stream_next(p, (uint8_t *)s->bytes + at, s->n - at, &used, &c));
        if (used) {
            s->ends = mem_grow(s->ends, s->n_ends, &cap, sizeof(*s->ends));
            s->ends[s->n_ends++] = at + used;
        }
    }
    assert_int_equal(p->phase, SEND_AT_END);
    free(p);
}

static struct stream stream_make(const struct uuid *id, const char *base, const char *snapshot)
{
    struct stream s = {.base = xstrdup_null(base), .snapshot = xstrdup(snapshot)};
    CLEANUP_FREE char *path = xasprintf("%s/stream", node_dir);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat st;

    ok(storage_snapshot_identity(A->storage, id, snapshot, &s.identity));
    ok(storage_send(A->storage, id, &(struct stream_spec){.base = base, .snapshot = snapshot}, fd, NULL));
    assert_int_equal(fstat(fd, &st), 0);
    s.n = (size_t)st.st_size;
    s.bytes = xmalloc(s.n);
    assert_int_equal(pread(fd, s.bytes, s.n, 0), s.n);
    find_ends(&s);
    return s;
}

/* As the mover feeds: a byte that lies unread in our end makes the reader see a broken connection when we close it so. */
struct feed {
    const char *bytes;
    size_t n, pause_every; /* 0 = never */
    bool whole;
    int fd;
};

static useconds_t feed_pause_us = 500;

static void *feed_it(void *cookie)
{
    struct feed *f = cookie;
    char byte;

    for (size_t at = 0; at < f->n;) {
        size_t n = f->n - at;

        if (f->pause_every && n > f->pause_every)
            n = f->pause_every;
        ssize_t w = send(f->fd, f->bytes + at, n, MSG_NOSIGNAL);

        if (w <= 0)
            break;
        at += (size_t)w;
        if (f->pause_every)
            usleep(feed_pause_us);
    }
    if (f->whole)
        (void)!recv(f->fd, &byte, 1, MSG_DONTWAIT);
    close(f->fd);
    return NULL;
}

static void feed_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(send(fds[1], "x", 1, 0), 1);
}

/* Bytes from..to of the stream; `to` before its end: it breaks off there. */
static struct err *receive_part(const struct uuid *id, const struct stream *s, const struct stream_point *from, size_t to)
{
    size_t at = from ? from->offset : 0;
    struct stream_spec spec = {.base = s->base, .snapshot = s->snapshot, .identity = s->identity, .from = from};
    pthread_t t;
    int fds[2];

    feed_pair(fds);
    struct feed f = {.bytes = s->bytes + at, .n = to - at, .whole = to == s->n, .fd = fds[0]};

    assert_int_equal(pthread_create(&t, NULL, feed_it, &f), 0);
    struct err *e = storage_receive(B->storage, id, &spec, fds[1]);

    close(fds[1]);
    pthread_join(t, NULL);
    return e;
}

static void break_at(const struct uuid *id, const struct stream *s, const struct stream_point *from, size_t to)
{
    struct err *e = receive_part(id, s, from, to);

    if (!e || e->code != ERR_UNAVAILABLE || !strstr(e->text, "broke off"))
        fail_msg("cut at %zu: %s", to, e ? e->text : "was taken");
    err_free(e);
}

static struct stream_point point_now(const struct uuid *id)
{
    struct stream_point p;

    ok(storage_stream_point(B->storage, id, &p));
    return p;
}

/* What is told of a point is right. */
static void assert_point(const struct stream_point *p, const struct stream *s, size_t offset)
{
    XXH128_hash_t h = XXH3_128bits(s->bytes, offset);

    assert_non_null(p->snapshot);
    assert_string_equal(p->snapshot, s->snapshot);
    assert_string_equal(p->identity, s->identity);
    assert_string_equal(p->base, s->base ? s->base : "");
    assert_int_equal(p->offset, offset);
    assert_true(p->hash_low == h.low64 && p->hash_high == h.high64);
    assert_null(p->token);
}

static void assert_no_point(const struct uuid *id)
{
    struct stream_point p = point_now(id);

    assert_null(p.snapshot);
    stream_point_done(&p);
}

/* ---- breaking off and going on ---- */

static void all_cuts(const struct uuid *id, const struct stream *s)
{
    assert_true(s->n_ends > 10);
    for (size_t i = 0; i + 1 < s->n_ends; i++) { /* the last is the end itself */
        size_t cut = s->ends[i] + (i % 3 == 1 ? 5 : 0);

        break_at(id, s, NULL, cut);
        if (i == 0) { /* not even the subvolume */
            assert_no_point(id);
            assert_tidy(id);
            continue;
        }
        struct stream_point p = point_now(id);

        assert_point(&p, s, s->ends[i]);
        assert_true(is_partial(B, id));
        ok(receive_part(id, s, &p, s->n));
        assert_same(id, s->snapshot, "continued");
        assert_no_point(id);
        assert_false(is_partial(B, id));
        assert_tidy(id);
        ok(storage_snapshot_delete(B->storage, id, s->snapshot));
        stream_point_done(&p);
    }
}

/* The same, each rest cut again. */
static void one_command_a_time(const struct uuid *id, const struct stream *s)
{
    struct stream_point p = {0};

    for (size_t i = 1; i + 1 < s->n_ends; i++) {
        break_at(id, s, p.snapshot ? &p : NULL, s->ends[i]);
        stream_point_done(&p);
        p = point_now(id);
        assert_point(&p, s, s->ends[i]);
    }
    ok(receive_part(id, s, &p, s->n));
    stream_point_done(&p);
    assert_same(id, s->snapshot, "a command a time");
    assert_tidy(id);
}

static void test_cut_after_each_command(void **state)
{
    struct uuid id;

    pool_compress(A, "zstd");
    id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);

    content_make_small(place);
    ok(storage_snapshot(A->storage, &id, "s1"));
    CLEANUP_STREAM struct stream whole = stream_make(&id, NULL, "s1");
    all_cuts(&id, &whole);
    one_command_a_time(&id, &whole);
    shell("cd %s && mv d/e/clone moved && cp --reflink=always d/text again && echo x >>d/file && rm hard && rmdir d/e && "
          "mv d f && ln f/file d",
          place);
    ok(storage_snapshot(A->storage, &id, "s2"));
    CLEANUP_STREAM struct stream more = stream_make(&id, "s1", "s2");
    all_cuts(&id, &more);
    one_command_a_time(&id, &more);
    pool_compress(A, "none");
    destroy_everywhere(&id);
}

static void test_what_ends_a_point(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);

    content_make_small(place);
    ok(storage_snapshot(A->storage, &id, "s1"));
    ok(storage_snapshot(A->storage, &id, "s2"));
    CLEANUP_STREAM struct stream one = stream_make(&id, NULL, "s1"), two = stream_make(&id, NULL, "s2");
    size_t cut = one.ends[one.n_ends / 2];
    struct stream_point p;

    /* tidied away, with what else is left over */
    break_at(&id, &one, NULL, cut);
    ok(storage_prune(B->storage, &id, NULL, NULL));
    assert_no_point(&id);
    assert_tidy(&id);
    /* another snapshot comes */
    break_at(&id, &one, NULL, cut);
    break_at(&id, &two, NULL, cut);
    p = point_now(&id);
    assert_point(&p, &two, cut);
    stream_point_done(&p);
    /* from the beginning */
    break_at(&id, &one, NULL, cut);
    break_at(&id, &one, NULL, 10);
    assert_no_point(&id);
    assert_tidy(&id);
    /* the bytes are not the same: nothing that was applied stays */
    break_at(&id, &one, NULL, cut);
    p = point_now(&id);
    one.bytes[cut + 12] ^= 1;
    fails(receive_part(&id, &one, &p, one.n), ERR_CORRUPT, "not valid at byte");
    one.bytes[cut + 12] ^= 1;
    assert_no_point(&id);
    assert_tidy(&id);
    fails(receive_part(&id, &one, &p, one.n), ERR_NOT_FOUND, "from the beginning");
    /* not what is here */
    break_at(&id, &one, NULL, cut);
    p.hash_low ^= 1;
    fails(receive_part(&id, &one, &p, one.n), ERR_NOT_FOUND, NULL);
    p.hash_low ^= 1;
    ok(receive_part(&id, &one, &p, one.n));
    stream_point_done(&p);
    assert_same(&id, "s1", "s1");
    /* the dataset goes */
    break_at(&id, &two, NULL, cut);
    destroy_everywhere(&id);
}

static void test_damaged_notes(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);

    content_make_small(place);
    ok(storage_snapshot(A->storage, &id, "s1"));
    CLEANUP_STREAM struct stream one = stream_make(&id, NULL, "s1");
    static const char *const damage[] = {": >$n", "truncate -s 100 $n", "rm $n", "mv $n ${n%/*}/note-77",
                                         "btrfs -q subvolume delete ${n%/*}/point-*"};

    for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
        break_at(&id, &one, NULL, one.ends[8]);
        CLEANUP_FREE char *command = xasprintf("n=$(echo %s/btrfs-pool/flocker/%s/incoming/*/note-*); test -f $n && ",
                                               B->state_dir, UUID_STR(&id));
        CLEANUP_FREE char *both = xasprintf("%s%s", command, damage[i]);
        shell("%s", both);
        assert_no_point(&id);
        assert_true(is_partial(B, &id));
    }
    ok(receive_part(&id, &one, NULL, one.n));
    assert_tidy(&id);
    destroy_everywhere(&id);
}

/* The increment was to another base of that name. */
static void test_base_exchanged(void **state)
{
    struct uuid id = new_volume(), other = node_new_dataset();
    CLEANUP_FREE char *place = node_place(A, &id);

    content_make_small(place);
    ok(storage_snapshot(A->storage, &id, "s1"));
    shell("echo more >%s/f", place);
    ok(storage_snapshot(A->storage, &id, "s2"));
    ok(copy(A, B, &id, NULL, "s1"));
    CLEANUP_STREAM struct stream more = stream_make(&id, "s1", "s2");
    break_at(&id, &more, NULL, more.ends[2]);
    struct stream_point p = point_now(&id);

    assert_point(&p, &more, more.ends[2]);
    ok(storage_snapshot_delete(B->storage, &id, "s1"));
    fails(receive_part(&id, &more, &p, more.n), ERR_NOT_FOUND, "base");
    shell("cd %s/btrfs-pool/flocker/%s && btrfs -q subvolume create x && btrfs -q subvolume snapshot -r x snap/s1 && "
          "btrfs -q subvolume delete x",
          B->state_dir, UUID_STR(&id));
    fails(receive_part(&id, &more, &p, more.n), ERR_CONFLICT, "another s1");
    fails(receive_part(&id, &more, NULL, more.n), ERR_CORRUPT, "increment from snapshot");
    stream_point_done(&p);
    assert_tidy(&id);
    destroy_everywhere(&id);
    destroy_everywhere(&other);
}

/* ---- crashes ---- */

/* The bytes of B's pool as they are now become the pool: as after a power cut. */
static void power_cut(void)
{
    CLEANUP_FREE char *pool = pool_of(B), *image = xasprintf("%s/1/pool.img", node_dir);

    shell("cp --sparse=always %s %s.cut", image, image);
    node_close(B);
    shell("umount %s && mv %s.cut %s", pool, image, image);
    node_open(B);
}

/* The first test: a pool that was used much is large to copy. */
static void test_power_cut(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id), *pool = pool_of(B);

    shell("sync -f %s && mount -o remount,commit=300 %s", pool, pool);
    content_make(place);
    ok(storage_snapshot(A->storage, &id, "s"));
    CLEANUP_STREAM struct stream s = stream_make(&id, NULL, "s");
    size_t cuts[] = {s.n_ends / 3, s.n_ends * 2 / 3};
    struct stream_point p = {0};

    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        break_at(&id, &s, p.snapshot ? &p : NULL, s.ends[cuts[i]]);
        stream_point_done(&p);
        power_cut();
        p = point_now(&id);
        assert_point(&p, &s, s.ends[cuts[i]]);
    }
    ok(receive_part(&id, &s, &p, s.n));
    stream_point_done(&p);
    power_cut(); /* acknowledged: there, whole, with its name */
    assert_same(&id, "s", "after a power cut");
    shell("echo more >%s/f", place);
    ok(storage_snapshot(A->storage, &id, "t"));
    ok(copy(A, B, &id, "s", "t"));
    assert_same(&id, "t", "an increment after a power cut");
    destroy_everywhere(&id);
}

static struct receive_pace pace = {300000, 20000};

/* Receives in a process of its own, with checkpoints at that pace; it is killed after `us`, or ends. */
static bool receive_and_kill(const struct uuid *id, const struct stream *s, const struct stream_point *from, useconds_t us)
{
    int fds[2], status;
    size_t at = from ? from->offset : 0;
    pthread_t t;

    feed_pair(fds);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        struct stream_spec spec = {.base = s->base, .snapshot = s->snapshot, .identity = s->identity, .from = from};

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fds[0]);
        receive_pace = pace;
        struct err *e = storage_receive(B->storage, id, &spec, fds[1]);

        if (e)
            (void)fprintf(stderr, "%s\n", e->text);
        _exit(e ? 1 : 0);
    }
    close(fds[1]);
    struct feed f = {.bytes = s->bytes + at, .n = s->n - at, .pause_every = 60000, .whole = true, .fd = fds[0]};

    assert_int_equal(pthread_create(&t, NULL, feed_it, &f), 0);
    usleep(us);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    pthread_join(t, NULL);
    if (WIFEXITED(status) && WEXITSTATUS(status))
        fail_msg("the receive failed by itself");
    return WIFEXITED(status);
}

static void test_killed_anywhere(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);
    uint64_t seed = 7, continued = 0, finished = 0;
    struct random r = random_seeded(&seed);

    content_make(place);
    shell("head -c 10M /dev/urandom >%s/big", place);
    ok(storage_snapshot(A->storage, &id, "s"));
    CLEANUP_STREAM struct stream s = stream_make(&id, NULL, "s");
    for (int i = 0; i < 30; i++) {
        struct stream_point p = point_now(&id);
        XXH128_hash_t h = XXH3_128bits(s.bytes, p.offset);

        assert_true(!p.snapshot || (p.hash_low == h.low64 && p.hash_high == h.high64));
        continued += p.snapshot != NULL;
        bool done = receive_and_kill(&id, &s, p.snapshot ? &p : NULL, (useconds_t)random_below(&r, 250000));

        stream_point_done(&p);
        struct volume_state v;
        ok(storage_observe(B->storage, &id, &v));
        bool there = volume_state_has_snapshot(&v, "s");
        volume_state_done(&v);
        assert_true(there || !done);
        if (!there)
            continue;
        finished++;
        assert_same(&id, "s", "after kills");
        ok(storage_prune(B->storage, &id, NULL, NULL));
        assert_tidy(&id);
    }
    print_message("30 kills: %d times continued, %d times it was there\n", (int)continued, (int)finished);
    assert_true(continued > 5);
    struct stream_point p = point_now(&id);

    ok(receive_part(&id, &s, p.snapshot ? &p : NULL, s.n));
    stream_point_done(&p);
    assert_same(&id, "s", "after the last kill");
    destroy_everywhere(&id);
}

/* Only the newest checkpoint is kept, and a running receive is not taken for a leftover. */
static void test_checkpoints_of_a_running_receive(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);
    pthread_t t;
    int fds[2];

    ok(storage_snapshot(A->storage, &id, "before"));
    ok(copy(A, B, &id, NULL, "before"));
    content_make(place);
    ok(storage_snapshot(A->storage, &id, "s"));
    CLEANUP_STREAM struct stream s = stream_make(&id, NULL, "s");
    feed_pair(fds);
    struct feed f = {.bytes = s.bytes, .n = s.n / 2, .pause_every = 100000, .fd = fds[0]};
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        struct stream_spec spec = {.snapshot = "s", .identity = s.identity};

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        receive_pace = (struct receive_pace){200000, 10000000};
        err_free(storage_receive(B->storage, &id, &spec, fds[1]));
        _exit(0);
    }
    int held = dup(fds[0]); /* it waits for more */
    assert_int_equal(pthread_create(&t, NULL, feed_it, &f), 0);
    pthread_join(t, NULL);
    usleep(300000);
    assert_false(is_partial(B, &id));
    assert_no_point(&id);
    ok(storage_prune(B->storage, &id, "before", NULL));
    fails(storage_drop(B->storage, &id), ERR_BUSY, "being received");
    CLEANUP_FREE char *files = shell_out("cd %s/btrfs-pool/flocker/%s/incoming/* && ls | tr '0-9' n | tr -s n | tr '\\n' ' '",
                                         B->state_dir, UUID_STR(&id));
    assert_string_equal(files, "note-n point-n work ");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(held);
    close(fds[1]);
    assert_true(is_partial(B, &id));
    struct stream_point p = point_now(&id);
    assert_non_null(p.snapshot);
    assert_true(p.offset > s.n / 4);
    ok(receive_part(&id, &s, &p, s.n));
    stream_point_done(&p);
    assert_same(&id, "s", "continued");
    destroy_everywhere(&id);
}

/* It is on disk when its time is over, not only begun then. */
static void test_checkpoint_in_time(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);

    shell("head -c 60M /dev/urandom >%s/a", place);
    ok(storage_snapshot(A->storage, &id, "s"));
    CLEANUP_STREAM struct stream s = stream_make(&id, NULL, "s");
    pace = (struct receive_pace){UINT64_MAX, 4 * USEC_PER_SEC};
    feed_pause_us = 5000; /* for longer than that */
    assert_false(receive_and_kill(&id, &s, NULL, 3700000));
    struct stream_point p = point_now(&id);
    assert_non_null(p.snapshot);
    assert_true(p.offset > 0);
    stream_point_done(&p);
    destroy_everywhere(&id);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cut),
        cmocka_unit_test(test_cut_after_each_command),
        cmocka_unit_test(test_what_ends_a_point),
        cmocka_unit_test(test_damaged_notes),
        cmocka_unit_test(test_base_exchanged),
        cmocka_unit_test(test_killed_anywhere),
        cmocka_unit_test(test_checkpoints_of_a_running_receive),
        cmocka_unit_test(test_checkpoint_in_time), /* changes the pace */
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
