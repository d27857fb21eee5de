/* Receiving btrfs streams on real pools: what arrives is the same, whatever it is; and sending them. */
#include "btrfs_nodes.h"
#include "content.h"

#include "base/now.h"
#include "base/str.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- the same arrives ---- */

static void everything(const char *here, const char *there)
{
    struct uuid id;

    pool_compress(A, here);
    pool_compress(B, there);
    id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);

    content_make(place);
    ok(storage_snapshot(A->storage, &id, "s0"));
    ok(copy(A, B, &id, NULL, "s0"));
    assert_same(&id, "s0", here);
    for (int i = 1; i < 4; i++) {
        char base[8], name[8];

        (void)snprintf(base, sizeof(base), "s%d", i - 1);
        (void)snprintf(name, sizeof(name), "s%d", i);
        content_change(place, i);
        ok(storage_snapshot(A->storage, &id, name));
        ok(copy(A, B, &id, base, name));
        assert_same(&id, name, name);
    }
    assert_tidy(&id);
    destroy_everywhere(&id);
}

static void test_everything(void **state)
{
    everything("none", "none");
}

static void test_everything_compressed(void **state)
{
    everything("zstd", "none");
    everything("zlib", "zstd");
    everything("lzo", "none");
    pool_compress(A, "none");
    pool_compress(B, "none");
}

/* A hole stays a hole, shared bytes stay shared. */
static void test_takes_no_more_room(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id), *there = snapshot_path(B, &id, "s");

    shell("cd %s && truncate -s 4G holes && head -c 30M /dev/urandom >a && sync -f . && cp --reflink=always a b && "
          "cp --reflink=always a c",
          place);
    ok(storage_snapshot(A->storage, &id, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    CLEANUP_FREE char *used = shell_out("stat -c %%b %s/holes; btrfs filesystem du -s --raw %s | awk 'END {print $1, $3}'",
                                        there, there);
    unsigned long holes, total, shared;

    assert_int_equal(sscanf(used, "%lu %lu %lu", &holes, &total, &shared), 3);
    assert_int_equal(holes, 0);
    assert_true(shared >= 30u << 20 && shared < 31u << 20);
    destroy_everywhere(&id);
}

static void test_twenty_laps(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *base = NULL, *first = node_place(A, &id);

    content_make(first);
    for (int lap = 1; lap <= 20; lap++) {
        struct node *from = lap % 2 ? A : B, *to = lap % 2 ? B : A;
        CLEANUP_FREE char *src = node_place(from, &id), *dst = node_place(to, &id), *name = xasprintf("f%d", lap);

        content_change(src, lap);
        CLEANUP_FREE char *want = content_list(src);
        ok(storage_release(from->storage, &id, (uint64_t)lap, (uint64_t)lap, name));
        ok(copy(from, to, &id, base, name));
        ok(storage_promote(to->storage, &id, name, 0, (uint64_t)lap + 1));
        ok(storage_mount(to->storage, &id, (uint64_t)lap + 1));
        CLEANUP_FREE char *got = content_list(dst);
        content_same(got, want, name);
        assert_same(&id, name, name);
        ok(storage_prune(from->storage, &id, name, NULL));
        ok(storage_prune(to->storage, &id, name, NULL));
        free(base);
        base = steal(&name);
    }
    destroy_everywhere(&id);
}

/* ---- what was worked on is kept for the next increment ---- */

static char *next_path(const struct uuid *id)
{
    CLEANUP_FREE char *pool = pool_of(B);

    return xasprintf("%s/flocker/%s/next", pool, UUID_STR(id));
}

static void test_increments_in_a_row(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id), *next = next_path(&id), *first = NULL;
    char base[8] = "", name[8];

    content_make(place);
    for (int i = 1; i <= 4; i++) {
        (void)snprintf(name, sizeof(name), "s%d", i);
        content_change(place, i);
        ok(storage_snapshot(A->storage, &id, name));
        ok(copy(A, B, &id, *base ? base : NULL, name));
        assert_same(&id, name, name);
        CLEANUP_FREE char *number = shell_out("btrfs inspect-internal rootid %s", next);
        if (!first)
            first = steal(&number);
        else
            assert_string_equal(number, first); /* the same one all the time */
        memcpy(base, name, sizeof(base));
    }
    /* It is of the newest snapshot only: an increment from an older one does not get it, and it goes. */
    content_change(place, 5);
    ok(storage_snapshot(A->storage, &id, "s5"));
    ok(copy(A, B, &id, "s2", "s5"));
    assert_same(&id, "s5", "s5");
    CLEANUP_FREE char *other = shell_out("btrfs inspect-internal rootid %s", next);
    assert_string_not_equal(other, first);
    ok(storage_prune(B->storage, &id, "s5", NULL));
    shell("! test -e %s", next);
    ok(storage_snapshot(A->storage, &id, "s6"));
    ok(copy(A, B, &id, "s5", "s6")); /* without it as well */
    assert_same(&id, "s6", "s6");
    destroy_everywhere(&id);
}

/* It alone is something that is left. */
static void test_next_is_not_forgotten(void **state)
{
    struct uuid id = new_volume();
    struct volume_state v;

    ok(storage_snapshot(A->storage, &id, "s1"));
    ok(copy(A, B, &id, NULL, "s1"));
    ok(storage_observe(B->storage, &id, &v));
    assert_false(v.partial);
    volume_state_done(&v);
    ok(storage_snapshot_delete(B->storage, &id, "s1"));
    ok(storage_observe(B->storage, &id, &v));
    assert_true(v.partial);
    volume_state_done(&v);
    ok(storage_drop(B->storage, &id));
    CLEANUP_FREE char *pool = pool_of(B);
    shell("! test -e %s/flocker/%s", pool, UUID_STR(&id));
    destroy_everywhere(&id);
}

/* ---- a base is only what it was ---- */

static void test_base_written_and_made_read_only_again(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id), *there = snapshot_path(B, &id, "s1");

    shell("echo 1 >%s/f", place);
    ok(storage_snapshot(A->storage, &id, "s1"));
    ok(copy(A, B, &id, NULL, "s1"));
    shell("echo 2 >%s/f", place);
    ok(storage_snapshot(A->storage, &id, "s2"));
    shell("btrfs property set -f %s ro false && echo 3 >%s/g && btrfs property set %s ro true", there, there, there);
    fails(copy(A, B, &id, "s1", "s2"), ERR_CORRUPT, "made writable");
    ok(storage_snapshot_delete(B->storage, &id, "s1"));
    ok(copy(A, B, &id, NULL, "s2"));
    assert_same(&id, "s2", "s2");
    destroy_everywhere(&id);
}

/* A file that is open but deleted is in the snapshot, half: the kernel clears it away, and that is no change. */
static void test_base_with_a_deleted_open_file(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id), *held = xasprintf("%s/held", place);
    CLEANUP_CLOSE int fd = open(held, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(unlink(held), 0);
    ok(storage_snapshot(A->storage, &id, "s1"));
    ok(copy(A, B, &id, NULL, "s1"));
    shell("echo 2 >%s/f", place);
    ok(storage_snapshot(A->storage, &id, "s2"));
    ok(copy(A, B, &id, "s1", "s2"));
    assert_same(&id, "s2", "s2");
    mem_closep(&fd);
    fd = -1;
    destroy_everywhere(&id);
}

/* Streams do not carry chattr's flags: what is immutable in the base at home came back changed. */
static void test_base_with_immutable_files(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *here = node_place(A, &id), *there = node_place(B, &id);

    shell("cd %s && mkdir d sealed && echo 1 >i && echo 1 >a && echo 1 >d/x && echo 1 >d/y && echo 1 >sealed/z && "
          "chattr +i i d/x d/y sealed && chattr +a a d",
          here);
    ok(storage_release(A->storage, &id, 1, 1, "s1"));
    ok(copy(A, B, &id, NULL, "s1"));
    ok(storage_promote(B->storage, &id, "s1", 0, 2));
    ok(storage_mount(B->storage, &id, 2));
    shell("cd %s && echo 2 >i && : >a && mv d/x d/moved && rm d/y && rm sealed/z && ln i sealed/link && mkdir d/e", there);
    CLEANUP_FREE char *want = content_list(there);
    ok(storage_release(B->storage, &id, 2, 2, "s2"));
    ok(copy(B, A, &id, "s1", "s2"));
    ok(storage_promote(A->storage, &id, "s2", 0, 3));
    ok(storage_mount(A->storage, &id, 3));
    CLEANUP_FREE char *got = content_list(here);
    content_same(got, want, "back");
    destroy_everywhere(&id);
}

/* ---- the limit ---- */

static void test_receive_is_under_the_limit(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);

    shell("head -c 60M /dev/urandom >%s/a", place);
    ok(storage_snapshot(A->storage, &id, "s"));
    ok(storage_create(B->storage, &id, 40 << 20, NULL, 1));
    unsigned before = atomic_load(&B->no_space);
    fails(copy(A, B, &id, NULL, "s"), ERR_LIMIT, "maximum size");
    assert_int_equal(atomic_load(&B->no_space), before); /* nobody else's copies are in its way */
    assert_tidy(&id);
    shell("btrfs filesystem sync %s/btrfs-pool && btrfs subvolume sync %s/btrfs-pool", B->state_dir, B->state_dir); /* what was written is given back a moment later */
    ok(storage_grow(B->storage, &id, 90 << 20, 1));
    ok(copy(A, B, &id, NULL, "s"));
    assert_same(&id, "s", "s");
    destroy_everywhere(&id);
    CLEANUP_FREE char *left = shell_out("btrfs qgroup show %s/btrfs-pool | awk '$1 ~ /^1\\// {print $1}'", B->state_dir);
    assert_string_equal(left, "");
}

/* ---- sending ---- */

static void *cancel_later(void *cookie)
{
    usleep(150000);
    atomic_store((atomic_bool *)cookie, true);
    return NULL;
}

/* Also while nobody reads, into a pipe and into a socket. */
static void test_send_is_cancelled(void **state)
{
    struct uuid id = new_volume();
    CLEANUP_FREE char *place = node_place(A, &id);

    shell("head -c 20M /dev/urandom >%s/f", place);
    ok(storage_snapshot(A->storage, &id, "s"));
    for (int i = 0; i < 6; i++) {
        atomic_bool cancel = false;
        pthread_t t;
        int p[2];

        if (i % 2)
            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
        else
            assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        uint64_t t0 = now_os().mono_us;
        assert_int_equal(pthread_create(&t, NULL, cancel_later, &cancel), 0);
        fails(storage_send(A->storage, &id, &(struct stream_spec){.snapshot = "s"}, p[1], &cancel), ERR_CANCELLED, NULL);
        assert_true(now_os().mono_us - t0 < 5 * USEC_PER_SEC);
        pthread_join(t, NULL);
        close(p[0]);
        fails(storage_send(A->storage, &id, &(struct stream_spec){.snapshot = "s"}, p[1], NULL), ERR_UNAVAILABLE, "went away");
        close(p[1]);
    }
    ok(storage_snapshot_delete(A->storage, &id, "s")); /* no send holds it */
    destroy_everywhere(&id);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_everything_compressed),
        cmocka_unit_test(test_takes_no_more_room),
        cmocka_unit_test(test_twenty_laps),
        cmocka_unit_test(test_increments_in_a_row),
        cmocka_unit_test(test_next_is_not_forgotten),
        cmocka_unit_test(test_base_written_and_made_read_only_again),
        cmocka_unit_test(test_base_with_a_deleted_open_file),
        cmocka_unit_test(test_base_with_immutable_files),
        cmocka_unit_test(test_receive_is_under_the_limit),
        cmocka_unit_test(test_send_is_cancelled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
