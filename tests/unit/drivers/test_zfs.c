/* What is special about the zfs backend: pools, replicas and what may be overwritten, holds, strangers' snapshots, what a
 * kill leaves of a receive, volumes of Flocker 1. */
#include "node.h"

#include "base/str.h"
#include "drivers/zfs/adopt.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define A (&nodes[0])
#define B (&nodes[1])
#define TOP_A "flocker-a/flocker"
#define TOP_B "flocker-b/flocker"
#define OWNER "f1b2c3d4-0000-4000-8000-000000000002"
#define OTHER "f1b2c3d4-0000-4000-8000-000000000003"

static struct uuid new_mounted(struct node *n)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(n->storage, &id, 64u << 20, NULL, 1));
    ok(storage_mount(n->storage, &id, 1));
    return id;
}

static void put(struct node *n, const struct uuid *id, const char *name, const char *text)
{
    CLEANUP_FREE char *place = node_place(n, id);

    write_file(place, name, text, strlen(text));
}

static void assert_content(struct node *n, const struct uuid *id, const char *name, const char *want)
{
    CLEANUP_FREE char *place = node_place(n, id), *got = read_text(place, name);

    assert_non_null(got);
    assert_string_equal(got, want);
}

static void check(struct node *n, const struct uuid *id, bool present, bool partial, size_t snapshots)
{
    struct volume_state v;

    ok(storage_observe(n->storage, id, &v));
    assert_int_equal(v.present, present);
    assert_int_equal(v.partial, partial);
    assert_int_equal(v.n_snapshots, snapshots);
    volume_state_done(&v);
}

static void destroy(const struct uuid *id)
{
    for (int i = 0; i < NODES; i++) {
        struct volume_state v;

        ok(storage_destroy(nodes[i].storage, id));
        ok(storage_observe(nodes[i].storage, id, &v));
        assert_true(volume_state_is_empty(&v));
        volume_state_done(&v);
    }
    CLEANUP_FREE char *left = shell_out("zfs list -H -r -t all -o name");
    CLEANUP_FREE char *folders = shell_out("find %s -name '*%s*'", node_dir, UUID_STR(id));

    assert_null(strstr(left, UUID_STR(id)));
    assert_string_equal(folders, "");
}

/* ---- pools ---- */

static struct err *open_with(const char *key, const char *value)
{
    CLEANUP_FREE char *dir = xasprintf("%s/st", node_dir);
    struct storage_config c = A->config;
    struct storage *s = NULL;
    json_t *o = json_pack("{s:s, s:s}", "backend", "zfs", key, value);

    shell("mkdir -p %s", dir);
    c.dataset = o;
    c.state_dir = dir;
    struct err *e = storage_open(&c, &s);

    storage_close(s);
    json_decref(o);
    return e;
}

static void test_wrong_pools(void **state)
{
    fails(open_with("pool", "nowhere"), ERR_NOT_FOUND, "there is no ZFS pool nowhere here: import it");
    fails(open_with("pool", "-f"), ERR_INVALID, "'-f' cannot be the name");
    fails(open_with("pool", "a/b"), ERR_INVALID, "'a/b' cannot be the name");
    fails(open_with("pol", "a"), ERR_INVALID, "has no key pol");
    fails(open_with("mount_root", "/elsewhere"), ERR_INVALID, "mount_root");
}

static void make_third_pool(void)
{
    CLEANUP_FREE char *file = xasprintf("%s/third.img", node_dir);

    shell("rm -f %s && truncate -s 128M %s && zpool create -m none third %s", file, file, file);
}

/* zfs-fuse goes on with an unmount after it returned. */
static void until_not_busy(const char *command)
{
    shell("for i in $(seq 50); do %s 2>/dev/null && exit; sleep 0.1; done; %s", command, command);
}

static void destroy_third_pool(void)
{
    shell("umount %s/st/zfs/marks", node_dir);
    until_not_busy("zpool destroy third");
}

/* A pool that was made anew is not the one with the datasets. */
static void test_other_pool_of_that_name(void **state)
{
    make_third_pool();
    ok(open_with("pool", "third"));
    ok(open_with("pool", "third"));
    destroy_third_pool();
    fails(open_with("pool", "third"), ERR_NOT_FOUND, "no ZFS pool third");
    make_third_pool();
    fails(open_with("pool", "third"), ERR_CONFLICT, "is another one");
    shell("rm %s/st/zfs-pool.guid", node_dir);
    ok(open_with("pool", "third"));
    destroy_third_pool();
    shell("rm -r %s/st", node_dir);
}

/* ---- sizes ---- */

static void test_limit(void **state)
{
    struct uuid id = new_mounted(A);
    CLEANUP_FREE char *place = node_place(A, &id);
    struct volume_state v;

    shell("dd if=/dev/urandom of=%s/x bs=1M count=20 conv=fsync status=none", place);
    ok(storage_grow(A->storage, &id, 100000000, 1));
    ok(storage_observe(A->storage, &id, &v));
    assert_int_equal(v.size, 100000000); /* exact, not rounded for people */
    volume_state_done(&v);
    ok(storage_snapshot(A->storage, &id, "s")); /* from then on ZFS knows what is used */
    fails(storage_grow(A->storage, &id, 1 << 20, 1), ERR_LIMIT, "less than current used");
    destroy(&id);
}

/* ---- what may be overwritten ---- */

static void test_owner_receives_nothing(void **state)
{
    struct uuid id = new_mounted(A);

    put(A, &id, "f", "a's");
    ok(storage_snapshot(A->storage, &id, "s"));
    ok(storage_create(B->storage, &id, 0, NULL, 9));
    ok(storage_mount(B->storage, &id, 9));
    put(B, &id, "f", "b's");
    fails(copy(A, B, &id, NULL, "s"), ERR_CONFLICT, "owns the dataset");
    /* nor onto a volume without a mark */
    ok(storage_unmount(B->storage, &id));
    CLEANUP_FREE char *mark = shell_out("ls %s/1/state/zfs/marks/%s/mark | tr -d '\\n'", node_dir, UUID_STR(&id));

    shell("mv %s %s.away", mark, mark);
    fails(copy(A, B, &id, NULL, "s"), ERR_CONFLICT, "never released");
    shell("mv %s.away %s", mark, mark);
    ok(storage_mount(B->storage, &id, 9));
    assert_content(B, &id, "f", "b's");
    destroy(&id);
}

static void test_replica_is_no_place_for_a_new_volume(void **state)
{
    struct uuid id = new_mounted(A);

    ok(storage_release(A->storage, &id, 1, 5, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    check(B, &id, false, false, 1);
    fails(storage_create(B->storage, &id, 0, NULL, 2), ERR_CONFLICT, "is a replica");
    check(B, &id, false, false, 1);
    destroy(&id);
}

/* The replica is readonly from its first moment, and never mounted. */
static void test_replica_is_readonly(void **state)
{
    struct uuid id = new_mounted(A);

    ok(storage_snapshot(A->storage, &id, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    CLEANUP_FREE char *got =
        shell_out("zfs get -H -o value readonly,canmount,mounted " TOP_B "/%s | tr '\\n' ' '", UUID_STR(&id));

    assert_string_equal(got, "on noauto no ");
    destroy(&id);
}

/* A quota that the administrator set above all volumes: the storage is full, though the pool is not; a dataset at its own limit is
 * something else. */
static void test_quota_above(void **state)
{
    struct uuid id = new_mounted(A);
    static unsigned char bytes[8u << 20];
    CLEANUP_FREE char *place = node_place(A, &id);
    unsigned before = atomic_load(&B->no_space);

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * i >> 7 ^ i >> 11);
    write_file(place, "f", bytes, sizeof(bytes));
    ok(storage_snapshot(A->storage, &id, "s"));
    shell("zfs set quota=$(($(zfs get -Hp -o value used " TOP_B ") + 2097152)) " TOP_B);
    fails(copy(A, B, &id, NULL, "s"), ERR_NO_SPACE, NULL);
    assert_true(atomic_load(&B->no_space) > before);
    shell("zfs set quota=none " TOP_B);
    ok(copy(A, B, &id, NULL, "s"));
    destroy(&id);
}

/* ---- snapshots of others ---- */

static void test_strangers_snapshots(void **state)
{
    struct uuid id = new_mounted(A);

    put(A, &id, "f", "1");
    ok(storage_snapshot(A->storage, &id, "one"));
    ok(copy(A, B, &id, NULL, "one"));
    shell("zfs snapshot " TOP_A "/%s@daily && zfs snapshot " TOP_B "/%s@daily", UUID_STR(&id), UUID_STR(&id));
    check(A, &id, true, false, 1); /* not listed */
    put(A, &id, "f", "2");
    ok(storage_release(A->storage, &id, 1, 5, "two"));
    ok(storage_prune(A->storage, &id, "one", NULL)); /* not pruned */
    shell("zfs list -H " TOP_A "/%s@daily", UUID_STR(&id));
    ok(storage_claim(A->storage, &id, 2));
    ok(storage_release(A->storage, &id, 2, 6, "two"));
    ok(copy(A, B, &id, "one", "two")); /* in the way there, and gone */
    ok(storage_promote(B->storage, &id, "two", 64u << 20, 3));
    ok(storage_mount(B->storage, &id, 3));
    assert_content(B, &id, "f", "2");
    destroy(&id);
}

/* Nobody's cleaning takes the base away; and whose hold is in our way is said. */
static void test_holds(void **state)
{
    struct uuid id = new_mounted(A);
    struct volume_state v;

    ok(storage_snapshot(A->storage, &id, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    shell("! zfs destroy " TOP_A "/%s@s 2>/dev/null && ! zfs destroy " TOP_B "/%s@s 2>/dev/null", UUID_STR(&id),
          UUID_STR(&id));
    shell("zfs hold mine " TOP_A "/%s@s", UUID_STR(&id));
    fails(storage_snapshot_delete(A->storage, &id, "s"), ERR_BUSY, "held");
    fails(storage_destroy(A->storage, &id), ERR_BUSY, "held");
    shell("zfs release mine " TOP_A "/%s@s", UUID_STR(&id));
    ok(storage_snapshot_delete(A->storage, &id, "s"));
    ok(storage_snapshot_delete(A->storage, &id, "s"));
    ok(storage_observe(A->storage, &id, &v));
    assert_int_equal(v.n_snapshots, 0);
    volume_state_done(&v);
    destroy(&id);
}

/* One whose destruction did not come to its end is a leftover, a received one too, and goes with the next cleaning. */
static void test_half_destroyed(void **state)
{
    struct uuid id = new_mounted(A);

    ok(storage_snapshot(A->storage, &id, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    shell("zfs clone " TOP_B "/%s@s flocker-b/mine", UUID_STR(&id));
    fails(storage_snapshot_delete(B->storage, &id, "s"), ERR_BUSY, "cloned");
    check(B, &id, false, true, 0);
    shell("zfs destroy flocker-b/mine");
    ok(storage_prune(B->storage, &id, NULL, NULL));
    shell("! zfs list -H " TOP_B "/%s@s 2>/dev/null", UUID_STR(&id));
    destroy(&id);
}

/* Killed between taking a snapshot and holding it: it never counted, and what was written since belongs into it. */
static void test_snapshot_without_hold(void **state)
{
    struct uuid id = new_mounted(A);

    put(A, &id, "f", "old");
    shell("sync; zfs snapshot -o flocker:snapshot=1 " TOP_A "/%s@s", UUID_STR(&id));
    check(A, &id, true, true, 0);
    put(A, &id, "f", "new");
    ok(storage_release(A->storage, &id, 1, 5, "s"));
    check(A, &id, true, false, 1);
    ok(copy(A, B, &id, NULL, "s"));
    ok(storage_promote(B->storage, &id, "s", 0, 2));
    ok(storage_mount(B->storage, &id, 2));
    assert_content(B, &id, "f", "new");
    destroy(&id);
    id = new_mounted(A);
    shell("zfs snapshot -o flocker:snapshot=1 " TOP_A "/%s@t", UUID_STR(&id));
    ok(storage_prune(A->storage, &id, NULL, NULL));
    check(A, &id, true, false, 0);
    shell("! zfs list -H " TOP_A "/%s@t 2>/dev/null", UUID_STR(&id));
    destroy(&id);
}

/* ---- looking into snapshots ---- */

static void check_digest(struct node *n, const struct uuid *id, const char *snapshot, const char *want)
{
    char got[STORAGE_DIGEST_SIZE];

    ok(storage_snapshot_digest(n->storage, id, snapshot, NULL, got));
    assert_string_equal(got, want);
}

/* The replica stays what it is, unmounted, and nothing is left beside it. */
static void test_nothing_is_left_of_a_comparison(void **state)
{
    struct uuid id = new_mounted(A);
    char want[STORAGE_DIGEST_SIZE];

    put(A, &id, "f", "1");
    ok(storage_snapshot(A->storage, &id, "s"));
    put(A, &id, "f", "2"); /* not part of it */
    ok(copy(A, B, &id, NULL, "s"));
    ok(storage_snapshot_digest(A->storage, &id, "s", NULL, want));
    check_digest(B, &id, "s", want);
    check(B, &id, false, false, 1);
    assert_content(A, &id, "f", "2");
    CLEANUP_FREE char *all = shell_out("zfs list -H -r -t filesystem -o name,mounted " TOP_B " | grep %s", UUID_STR(&id));
    CLEANUP_FREE char *replica = xasprintf(TOP_B "/%s\tno\n", UUID_STR(&id));
    CLEANUP_FREE char *folders = shell_out("find %s/1/state/zfs -maxdepth 1 -name '*%s*'", node_dir, UUID_STR(&id));

    assert_string_equal(all, replica);
    assert_string_equal(folders, "");
    ok(storage_snapshot_delete(B->storage, &id, "s"));
    fails(storage_snapshot_digest(B->storage, &id, "s", NULL, want), ERR_NOT_FOUND, "no snapshot s here");
    destroy(&id);
}

/* What an agent that is killed while it compares leaves. */
static void leave_view(int node, const struct uuid *id, const char *snapshot)
{
    const char *fs = node ? TOP_B : TOP_A;
    CLEANUP_FREE char *place = xasprintf("%s/%d/state/zfs/%s.view", node_dir, node, UUID_STR(id));

    /* zfs-fuse mounts a clone by itself. */
    shell("zfs clone -o readonly=on -o canmount=noauto -o mountpoint=%s %s/%s@%s %s/%s/view; "
          "zfs mount %s/%s/view 2>/dev/null || mountpoint -q %s",
          place, fs, UUID_STR(id), snapshot, fs, UUID_STR(id), fs, UUID_STR(id), place);
    check(&nodes[node], id, node == 0, /* partial= */ true, 2);
}

static void test_killed_while_comparing(void **state)
{
    struct uuid id = new_mounted(A);
    char want[STORAGE_DIGEST_SIZE];

    ok(storage_snapshot(A->storage, &id, "one"));
    ok(copy(A, B, &id, NULL, "one"));
    put(A, &id, "f", "2");
    ok(storage_snapshot(A->storage, &id, "two"));
    ok(copy(A, B, &id, "one", "two"));
    leave_view(0, &id, "one"); /* another one */
    ok(storage_snapshot_digest(A->storage, &id, "two", NULL, want));
    check(A, &id, true, false, 2);
    leave_view(1, &id, "two");
    check_digest(B, &id, "two", want);
    check(B, &id, false, false, 2);
    leave_view(1, &id, "two");
    ok(storage_prune(B->storage, &id, "two", NULL));
    check(B, &id, false, false, 1);
    leave_view(0, &id, "two");
    ok(storage_snapshot_delete(A->storage, &id, "two"));
    check(A, &id, true, false, 1);
    ok(storage_snapshot(A->storage, &id, "three"));
    leave_view(0, &id, "three");
    destroy(&id);
}

static void test_size_of_a_stream(void **state)
{
    struct uuid id = new_mounted(A);
    CLEANUP_FREE char *place = node_place(A, &id);
    struct stream_spec whole = {.snapshot = "one"}, more = {.snapshot = "two", .base = "one"};
    uint64_t bytes = 0;

    shell("dd if=/dev/urandom of=%s/f bs=1M count=8 conv=fsync status=none", place);
    ok(storage_snapshot(A->storage, &id, "one"));
    ok(storage_stream_size(A->storage, &id, &whole, &bytes));
    assert_in_range(bytes, 8u << 20, 9u << 20);
    shell("dd if=/dev/urandom of=%s/g bs=1M count=2 conv=fsync status=none", place);
    ok(storage_snapshot(A->storage, &id, "two"));
    ok(storage_stream_size(A->storage, &id, &more, &bytes));
    if (bytes) /* zfs-fuse cannot tell */
        assert_in_range(bytes, 2u << 20, 3u << 20);
    fails(storage_stream_size(A->storage, &id, &(struct stream_spec){.snapshot = "none"}, &bytes), ERR_NOT_FOUND, NULL);
    destroy(&id);
}

/* ---- what a killed receiver leaves ---- */

static char *guid(const char *top, const struct uuid *id, const char *snapshot)
{
    return shell_out("zfs get -Hp -o value guid %s/%s@%s | tr -d '\\n'", top, UUID_STR(id), snapshot);
}

static void receive_by_hand(const struct uuid *id, const char *base, const char *snapshot, const char *to)
{
    shell("zfs send %s " TOP_A "/%s@%s | zfs receive -u " TOP_B "/%s@%s", base, UUID_STR(id), snapshot, to, snapshot);
}

static void note(const struct uuid *id, const char *snapshot, const char *identity, const char *base)
{
    shell("d=%s/1/state/zfs/marks/%s; mkdir -p $d && echo '%s %s %s' >$d/incoming", node_dir, UUID_STR(id), snapshot, identity,
          base);
}

/* All arrived, nothing was accepted: the repetition takes it without another byte. */
static void test_arrived_but_not_accepted(void **state)
{
    struct uuid id = new_mounted(A);
    CLEANUP_FREE char *incoming = xasprintf("%s.incoming", UUID_STR(&id)), *fs = xstrdup(UUID_STR(&id));

    put(A, &id, "f", "1");
    ok(storage_snapshot(A->storage, &id, "one"));
    CLEANUP_FREE char *one = guid(TOP_A, &id, "one");

    note(&id, "one", one, "-");
    receive_by_hand(&id, "", "one", incoming);
    check(B, &id, false, true, 0);
    fails(copy(A, B, &id, NULL, "one"), ERR_EXISTS, NULL);
    check(B, &id, false, false, 1);
    put(A, &id, "f", "2");
    ok(storage_snapshot(A->storage, &id, "two"));
    CLEANUP_FREE char *two = guid(TOP_A, &id, "two");

    note(&id, "two", two, "one");
    receive_by_hand(&id, "-i @one", "two", fs);
    check(B, &id, false, false, 1);
    fails(copy(A, B, &id, "one", "two"), ERR_EXISTS, NULL);
    check(B, &id, false, false, 2);
    destroy(&id);
}

/* Accepted, but killed before it got its name. */
static void test_accepted_but_not_renamed(void **state)
{
    struct uuid id = new_mounted(A);
    CLEANUP_FREE char *incoming = xasprintf("%s.incoming", UUID_STR(&id));

    ok(storage_snapshot(A->storage, &id, "one"));
    CLEANUP_FREE char *one = guid(TOP_A, &id, "one");

    note(&id, "one", one, "-");
    receive_by_hand(&id, "", "one", incoming);
    shell("zfs hold flocker " TOP_B "/%s@one && zfs set flocker:role=replica " TOP_B "/%s", incoming, incoming);
    check(B, &id, false, true, 0);
    ok(storage_prune(B->storage, &id, "one", NULL));
    check(B, &id, false, false, 1);
    destroy(&id);
}

/* What did not come to its end goes, and an older replica stays as it was. */
static void test_leftovers_go(void **state)
{
    struct uuid id = new_mounted(A);
    CLEANUP_FREE char *incoming = xasprintf("%s.incoming", UUID_STR(&id)), *fs = xstrdup(UUID_STR(&id));

    put(A, &id, "f", "1");
    ok(storage_snapshot(A->storage, &id, "one"));
    ok(copy(A, B, &id, NULL, "one"));
    put(A, &id, "f", "2");
    ok(storage_snapshot(A->storage, &id, "two"));
    note(&id, "two", "1", "one"); /* another guid was wanted */
    receive_by_hand(&id, "-i @one", "two", fs);
    receive_by_hand(&id, "", "two", incoming);
    check(B, &id, false, true, 1);
    ok(storage_prune(B->storage, &id, "one", NULL));
    check(B, &id, false, false, 1);
    CLEANUP_FREE char *left = shell_out("zfs list -H -r -t all -o name " TOP_B " | grep -c %s", UUID_STR(&id));

    assert_string_equal(left, "2\n"); /* the replica and its one snapshot */
    ok(copy(A, B, &id, "one", "two")); /* it is exactly at its base again */
    destroy(&id);
}

struct sender {
    const struct uuid *id;
    const char *base, *snapshot;
    int fd;
};

static void *send_main(void *cookie)
{
    struct sender *s = cookie;
    const struct stream_spec stream = {.base = s->base, .snapshot = s->snapshot};

    ok(storage_send(A->storage, s->id, &stream, s->fd, NULL));
    close(s->fd);
    return NULL;
}

/* Through a socket, as the mover does. */
static struct err *receive_as(const struct uuid *id, const char *base, const char *snapshot, const char *identity)
{
    pthread_t t;
    int p[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
    struct sender s = {id, base, snapshot, p[1]};

    assert_int_equal(pthread_create(&t, NULL, send_main, &s), 0);
    struct err *e = storage_receive(B->storage, id,
                                    &(struct stream_spec){.base = base, .snapshot = snapshot, .identity = identity}, p[0]);

    close(p[0]);
    pthread_join(t, NULL);
    return e;
}

static void test_other_snapshot_than_named(void **state)
{
    struct uuid id = new_mounted(A);

    put(A, &id, "f", "1");
    ok(storage_snapshot(A->storage, &id, "one"));
    fails(receive_as(&id, NULL, "one", "12345"), ERR_CORRUPT, "not 12345");
    check(B, &id, false, true, 0); /* the folder of marks, which goes with the next drop */
    ok(copy(A, B, &id, NULL, "one"));
    put(A, &id, "f", "2");
    ok(storage_snapshot(A->storage, &id, "two"));
    fails(receive_as(&id, "one", "two", "12345"), ERR_CORRUPT, "not 12345");
    check(B, &id, false, false, 1);
    fails(copy(A, B, &id, "none", "two"), ERR_NOT_FOUND, "none");
    CLEANUP_FREE char *two = guid(TOP_A, &id, "two");

    ok(receive_as(&id, "one", "two", two));
    check(B, &id, false, false, 2);
    destroy(&id);
}

/* ---- streams that broke ---- */

/* The stream, from the beginning or from a point, as a file in node_dir; its length. */
static size_t stream_to_file(const struct uuid *id, const struct stream_spec *stream)
{
    CLEANUP_FREE char *file = xasprintf("%s/stream", node_dir);
    CLEANUP_CLOSE int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat st;

    ok(storage_send(A->storage, id, stream, fd, NULL));
    assert_int_equal(fstat(fd, &st), 0);
    return (size_t)st.st_size;
}

static struct err *receive_file(const struct uuid *id, const struct stream_spec *stream)
{
    CLEANUP_FREE char *file = xasprintf("%s/stream", node_dir);
    CLEANUP_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return storage_receive(B->storage, id, stream, fd);
}

/* Breaks the stream in the middle. false: nothing is kept of it, as this ZFS cannot continue. */
static bool break_stream(const struct uuid *id, struct stream_spec *stream, struct stream_point *ret_point)
{
    CLEANUP_FREE char *file = xasprintf("%s/stream", node_dir);
    size_t n = stream_to_file(id, stream);

    assert_int_equal(truncate(file, (off_t)(n / 2)), 0);
    struct err *e = receive_file(id, stream);

    assert_non_null(e);
    err_free(e);
    ok(storage_stream_point(B->storage, id, ret_point));
    if (!ret_point->snapshot) {
        CLEANUP_FREE char *left = shell_out("zfs list -H -r -o name " TOP_B);
        CLEANUP_FREE char *incoming = xasprintf("%s.incoming", UUID_STR(id));

        assert_null(strstr(left, incoming));
        return false;
    }
    assert_string_equal(ret_point->snapshot, stream->snapshot);
    assert_string_equal(ret_point->identity, stream->identity);
    assert_string_equal(ret_point->base, stream->base ? stream->base : "");
    assert_non_null(ret_point->token);
    return true;
}

static void go_on(const struct uuid *id, struct stream_spec *stream, struct stream_point *point)
{
    CLEANUP_FREE char *file = xasprintf("%s/stream", node_dir);
    struct stat whole;

    (void)stream_to_file(id, stream);
    assert_int_equal(stat(file, &whole), 0);
    stream->from = point;
    size_t rest = stream_to_file(id, stream);

    assert_true(rest < (size_t)whole.st_size * 3 / 4);
    ok(receive_file(id, stream));
    stream_point_done(point);
    ok(storage_stream_point(B->storage, id, point));
    assert_null(point->snapshot);
}

static void test_broken_streams_go_on(void **state)
{
    struct uuid id = new_mounted(A);
    CLEANUP_FREE char *place = node_place(A, &id), *there = node_place(B, &id);
    struct stream_point point = {0};

    shell("head -c 16000000 /dev/urandom >%s/a", place);
    ok(storage_snapshot(A->storage, &id, "one"));
    CLEANUP_FREE char *one = guid(TOP_A, &id, "one");
    struct stream_spec whole = {.snapshot = "one", .identity = one};

    if (!break_stream(&id, &whole, &point)) {
        print_message("skipped: this ZFS cannot continue a receive\n");
        destroy(&id);
        return;
    }
    check(B, &id, false, true, 0);
    go_on(&id, &whole, &point);
    check(B, &id, false, false, 1);
    shell("head -c 16000000 /dev/urandom >%s/b", place);
    CLEANUP_FREE char *want = digest(place);

    ok(storage_release(A->storage, &id, 1, 5, "two"));
    CLEANUP_FREE char *two = guid(TOP_A, &id, "two");
    struct stream_spec more = {.base = "one", .snapshot = "two", .identity = two};

    assert_true(break_stream(&id, &more, &point));
    check(B, &id, false, true, 1);
    stream_point_done(&point);
    node_close(B); /* the agent began anew meanwhile */
    node_open(B);
    ok(storage_stream_point(B->storage, &id, &point));
    go_on(&id, &more, &point);
    ok(storage_promote(B->storage, &id, "two", 64u << 20, 2));
    ok(storage_mount(B->storage, &id, 2));
    CLEANUP_FREE char *got = digest(there);

    assert_string_equal(got, want);
    destroy(&id);
}

/* A token names a snapshot by itself: a peer must not get another dataset's data with it. */
static void test_token_of_another_dataset(void **state)
{
    struct uuid id = new_mounted(A), other = new_mounted(A);
    CLEANUP_FREE char *place = node_place(A, &id);
    struct stream_point point = {0}, bad = {.snapshot = (char[]){"one"}, .token = (char[]){"--help"}};
    CLEANUP_CLOSE int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    shell("head -c 8000000 /dev/urandom >%s/a", place);
    ok(storage_snapshot(A->storage, &id, "one"));
    ok(storage_snapshot(A->storage, &other, "one"));
    CLEANUP_FREE char *one = guid(TOP_A, &id, "one");
    struct stream_spec stream = {.snapshot = "one", .identity = one};

    if (break_stream(&id, &stream, &point)) {
        stream.from = &point;
        fails(storage_send(A->storage, &other, &stream, null, NULL), ERR_CONFLICT, "another stream");
        ok(storage_prune(B->storage, &id, NULL, NULL)); /* and what is not wanted any more goes */
        check(B, &id, false, true, 0);
        stream_point_done(&point);
        ok(storage_stream_point(B->storage, &id, &point));
        assert_null(point.snapshot);
    }
    stream.from = &bad;
    fails(storage_send(A->storage, &id, &stream, null, NULL), ERR_INVALID, "no resume token");
    destroy(&id);
    destroy(&other);
}

/* The replica's older snapshots are no base any more: the whole takes its place, when it is complete. */
static void test_whole_replaces_a_replica(void **state)
{
    struct uuid id = new_mounted(A);

    put(A, &id, "f", "1");
    ok(storage_snapshot(A->storage, &id, "one"));
    ok(copy(A, B, &id, NULL, "one"));
    ok(storage_snapshot_delete(A->storage, &id, "one"));
    put(A, &id, "f", "2");
    ok(storage_release(A->storage, &id, 1, 5, "two"));
    ok(copy(A, B, &id, NULL, "two"));
    check(B, &id, false, false, 1);
    ok(storage_promote(B->storage, &id, "two", 0, 2));
    ok(storage_mount(B->storage, &id, 2));
    assert_content(B, &id, "f", "2");
    destroy(&id);
}

/* ---- who is in the way ---- */

static void hold_folder(const char *folder)
{
    if (chdir(folder) < 0)
        _exit(1);
}

static void test_busy_says_who(void **state)
{
    struct uuid id = new_mounted(A);
    CLEANUP_FREE char *private = xasprintf("%s/0/state/zfs/%s", node_dir, UUID_STR(&id));

    ok(storage_release(A->storage, &id, 1, 5, "s"));
    pid_t pid = helper_start(hold_folder, private);
    CLEANUP_FREE char *who = xasprintf("pid %d (test-zfs)", (int)pid);

    fails(storage_drop(A->storage, &id), ERR_BUSY, who);
    helper_stop(pid);
    destroy(&id);
}

/* Somebody unmounts our own mount of a volume that is in use: it is found by the user's. */
static void test_own_mount_is_taken_away(void **state)
{
    struct uuid id = new_mounted(A);
    struct volume_state v;

    put(A, &id, "f", "x");
    shell("umount %s/0/state/zfs/%s", node_dir, UUID_STR(&id));
    ok(storage_observe(A->storage, &id, &v));
    assert_true(v.mounted);
    volume_state_done(&v);
    /* With the last mount goes the number of the device; somebody else may get it and seem to use the volume. */
    struct err *e = storage_release(A->storage, &id, 1, 5, "s");

    for (int i = 0; i < 20 && err_is(e, ERR_BUSY); i++) {
        err_free(e);
        e = storage_release(A->storage, &id, 1, 5, "s");
    }
    ok(e);
    ok(storage_claim(A->storage, &id, 2));
    ok(storage_mount(A->storage, &id, 2));
    assert_content(A, &id, "f", "x");
    destroy(&id);
}

/* ---- Flocker 1 ---- */

static struct driver_config config_of(const struct node *n)
{
    return (struct driver_config){.options = n->config.dataset, .state_dir = n->state_dir};
}

static void make_old(const char *owner, const struct uuid *id)
{
    shell("zfs create -o mountpoint=%s/old-%s -o readonly=off -o refquota=32M flocker-a/%s.default.%s", node_dir, UUID_STR(id),
          owner, UUID_STR(id));
    shell("cd %s/old-%s && echo kept >data && mkdir -p d/e .hidden && echo x >d/e/f && ln -s d link && chown 7:8 . && "
          "chmod 2770 .",
          node_dir, UUID_STR(id));
}

static struct zfs_old find_old(const struct uuid *id)
{
    struct driver_config c = config_of(A);
    struct uuid owner;
    struct zfs_old *all, found = {.state = (enum zfs_old_state)-1};
    size_t n;

    assert_true(uuid_parse(OWNER, &owner));
    ok(zfs_old_list(&c, &owner, &all, &n));
    for (size_t i = 0; i < n; i++) {
        if (uuid_eq(&all[i].dataset, id))
            found = all[i];
        else
            free(all[i].name);
    }
    free(all);
    return found;
}

static void take(const struct uuid *id)
{
    struct driver_config c = config_of(A);
    struct zfs_old old = find_old(id);

    ok(zfs_old_adopt(&c, &old));
    free(old.name);
}

/* It is there as it was, and becomes the dataset's volume when that is created here. */
static void check_adopted(const struct uuid *id)
{
    CLEANUP_FREE char *place = node_place(A, id);
    struct volume_state v;
    struct stat st;

    check(A, id, true, false, 0);
    ok(storage_create(A->storage, id, 64u << 20, NULL, 1));
    ok(storage_mount(A->storage, id, 1));
    ok(storage_observe(A->storage, id, &v));
    assert_int_equal(v.size, 32 << 20);
    volume_state_done(&v);
    assert_content(A, id, "data", "kept\n");
    assert_content(A, id, "d/e/f", "x\n");
    CLEANUP_FREE char *list = shell_out("ls -A %s | tr '\\n' ' '", place);

    assert_string_equal(list, ".hidden d data link ");
    assert_int_equal(stat(place, &st), 0);
    assert_int_equal(st.st_mode & 07777, 02770);
    assert_true(st.st_uid == 7 && st.st_gid == 8);
    destroy(id);
}

static void test_adopt(void **state)
{
    struct uuid id = node_new_dataset(), foreign = node_new_dataset();
    struct driver_config c = config_of(A);

    make_old(OWNER, &id);
    make_old(OTHER, &foreign);
    struct zfs_old old = find_old(&id), other = find_old(&foreign);

    assert_int_equal(old.state, ZFS_OLD_READY);
    assert_int_equal(old.limit, 32 << 20);
    assert_int_equal(other.state, ZFS_OLD_REPLICA);
    free(other.name);
    CLEANUP_FREE char *mount = xasprintf("%s/old-%s", node_dir, UUID_STR(&id));
    pid_t pid = helper_start(hold_folder, mount);

    fails(zfs_old_adopt(&c, &old), ERR_BUSY, "stop what uses it");
    helper_stop(pid);
    ok(zfs_old_adopt(&c, &old));
    fails(zfs_old_adopt(&c, &old), ERR_EXISTS, "nothing is overwritten");
    free(old.name);
    shell("rmdir %s 2>/dev/null || test ! -e %s", mount, mount);
    check_adopted(&id);
    CLEANUP_FREE char *remove = xasprintf("zfs destroy -r flocker-a/" OTHER ".default.%s", UUID_STR(&foreign));

    until_not_busy(remove);
}

/* Killed at each step: it goes on from there, and until it is done nobody touches the data. */
static void test_adopt_interrupted(void **state)
{
    static const char *const done[] = {
        "true",
        "mkdir .flocker-adopting",
        "mkdir .flocker-adopting && zfs set flocker:role=moving $fs",
        "mkdir .flocker-adopting && mv data d .flocker-adopting && zfs set flocker:role=moving $fs",
        "mkdir .flocker-adopting && mv data d .hidden link .flocker-adopting && chown 7:8 .flocker-adopting && "
        "chmod 2770 .flocker-adopting && mv .flocker-adopting data && zfs set flocker:role=moving $fs",
    };

    for (size_t i = 0; i < ARRAY_SIZE(done); i++) {
        struct uuid id = node_new_dataset();

        make_old(OWNER, &id);
        shell("fs=" TOP_A "/%s; old=flocker-a/" OWNER ".default.%s; cd %s/old-%s && zfs set canmount=noauto $old && "
              "zfs set flocker:role=adopting $old && for k in 1 2 3 4 5 6 7 8 9; do cd / && zfs unmount $old; zfs rename $old $fs && "
              "break; sleep 0.1; done 2>/dev/null; zfs mount $fs && cd %s/old-%s && %s && cd / && zfs unmount $fs",
              UUID_STR(&id), UUID_STR(&id), node_dir, UUID_STR(&id), node_dir, UUID_STR(&id), done[i]);
        shell("rm -df %s/old-%s", node_dir, UUID_STR(&id));
        check(A, &id, false, true, 0);
        fails(storage_create(A->storage, &id, 0, NULL, 1), ERR_CONFLICT, "flocker-volume adopt");
        fails(storage_destroy(A->storage, &id), ERR_CONFLICT, "flocker-volume adopt");
        take(&id);
        check_adopted(&id);
    }
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_pools),
        cmocka_unit_test(test_other_pool_of_that_name),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_owner_receives_nothing),
        cmocka_unit_test(test_replica_is_no_place_for_a_new_volume),
        cmocka_unit_test(test_replica_is_readonly),
        cmocka_unit_test(test_quota_above),
        cmocka_unit_test(test_strangers_snapshots),
        cmocka_unit_test(test_holds),
        cmocka_unit_test(test_half_destroyed),
        cmocka_unit_test(test_snapshot_without_hold),
        cmocka_unit_test(test_nothing_is_left_of_a_comparison),
        cmocka_unit_test(test_killed_while_comparing),
        cmocka_unit_test(test_size_of_a_stream),
        cmocka_unit_test(test_arrived_but_not_accepted),
        cmocka_unit_test(test_accepted_but_not_renamed),
        cmocka_unit_test(test_leftovers_go),
        cmocka_unit_test(test_other_snapshot_than_named),
        cmocka_unit_test(test_broken_streams_go_on),
        cmocka_unit_test(test_token_of_another_dataset),
        cmocka_unit_test(test_whole_replaces_a_replica),
        cmocka_unit_test(test_busy_says_who),
        cmocka_unit_test(test_own_mount_is_taken_away),
        cmocka_unit_test(test_adopt),
        cmocka_unit_test(test_adopt_interrupted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
