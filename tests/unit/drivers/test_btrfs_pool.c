/* What is special about the btrfs pool: finding, making, losing it; durability at power loss; being full. */
#include "node.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define A (&nodes[0])
#define B (&nodes[1])

static struct err *open_with(const char *pool, const char *size)
{
    CLEANUP_FREE char *state = xasprintf("%s/st", node_dir);
    struct storage_config c = A->config;
    struct storage *s = NULL;
    json_t *o = json_pack("{s:s, s:s, s:s}", "backend", "btrfs", "pool", pool, "pool_size", size);

    shell("mkdir -p %s", state);
    c.dataset = o;
    c.state_dir = state;
    struct err *e = storage_open(&c, &s);

    storage_close(s);
    json_decref(o);
    return e;
}

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", node_dir, name);
}

static void forget_state(void)
{
    shell("umount %s/st/btrfs-pool 2>/dev/null; rm -rf --one-file-system %s/st", node_dir,
          node_dir);
}

static void test_foreign_file(void **state)
{
    CLEANUP_FREE char *p = in_dir("ext4.img"), *q = in_dir("text");

    shell("truncate -s 64M %s && mkfs.ext4 -q %s && sha256sum <%s >%s/sum", p, p, p, node_dir);
    fails(open_with(p, "1GiB"), ERR_INVALID, "holds ext4, not btrfs");
    shell("sha256sum <%s | cmp - %s/sum", p, node_dir);
    shell("echo precious >%s", q);
    fails(open_with(q, "1GiB"), ERR_INVALID, "not formatted");
    CLEANUP_FREE char *text = read_text(node_dir, "text");
    assert_string_equal(text, "precious\n");
    forget_state();
}

static void test_empty_file_and_size(void **state)
{
    CLEANUP_FREE char *p = in_dir("empty.img");
    struct stat st;

    shell(": >%s; echo half >%s.new", p, p); /* and what a crash left of an earlier try */
    ok(open_with(p, "300MiB"));
    ok(open_with(p, "300MiB"));
    assert_int_equal(stat(p, &st), 0);
    assert_int_equal(st.st_size, 300 << 20);
    CLEANUP_FREE char *left = in_dir("empty.img.new");
    assert_int_equal(access(left, F_OK), -1);
    forget_state();
    fails(open_with("relative.img", "300MiB"), ERR_INVALID, "absolute");
    forget_state();
}

/* A disk that is not mounted is not a new, empty pool. */
static void test_lost_pool(void **state)
{
    CLEANUP_FREE char *p = in_dir("lost.img");

    ok(open_with(p, "300MiB"));
    shell("umount %s/st/btrfs-pool && mv %s %s.away", node_dir, p, p);
    fails(open_with(p, "300MiB"), ERR_NOT_FOUND, "is missing");
    assert_int_equal(access(p, F_OK), -1);
    shell("truncate -s 300M %s && mkfs.btrfs -q %s", p, p);
    fails(open_with(p, "300MiB"), ERR_CONFLICT, "another btrfs");
    shell("umount %s/st/btrfs-pool && mv %s.away %s", node_dir, p, p);
    ok(open_with(p, "300MiB"));
    forget_state();
}

static void test_folder(void **state)
{
    CLEANUP_FREE char *p = in_dir("folder"), *none = in_dir("none/"), *img = in_dir("folder.img");

    shell("mkdir %s", p);
    fails(open_with(p, "1GiB"), ERR_NOT_FOUND, "not on btrfs");
    fails(open_with(none, "1GiB"), ERR_NOT_FOUND, "missing");
    shell("truncate -s 300M %s && mkfs.btrfs -q %s && mount -o loop %s %s && mkdir %s/sub", img,
          img, img, p, p);
    CLEANUP_FREE char *sub = in_dir("folder/sub");

    ok(open_with(sub, "1GiB"));
    shell("test -d %s/flocker", sub);
    shell("umount %s", p);
    fails(open_with(p, "1GiB"), ERR_NOT_FOUND, "not on btrfs");
    forget_state();
}

/* Mounts the bytes of the pool as they are now: what a machine would find after a power cut. */
static char *crash_image(int node)
{
    char *at = in_dir("crashed");

    shell("cp --sparse=always %s/%d/pool.img %s/crash.img && mkdir -p %s && mount -o loop "
          "%s/crash.img "
          "%s",
          node_dir, node, node_dir, at, node_dir, at);
    return at;
}

static void crash_end(void)
{
    shell("umount %s/crashed && rm %s/crash.img", node_dir, node_dir);
}

static void test_durable(void **state)
{
    struct uuid id = node_new_dataset();
    CLEANUP_FREE char *place = node_place(A, &id);

    ok(storage_create(A->storage, &id, 0, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    CLEANUP_FREE char *at = crash_image(0);
    shell("test -d %s/flocker/%s/vol && grep -q 'owned 1 ' %s/flocker/%s/mark", at, UUID_STR(&id),
          at, UUID_STR(&id));
    crash_end();
    shell("cd %s && for i in $(seq 500); do head -c 20000 /dev/urandom >$i; done", place);
    CLEANUP_FREE char *want = digest(place);

    ok(storage_release(A->storage, &id, 1, 9, "s"));
    free(crash_image(0));
    CLEANUP_FREE char *snap = xasprintf("%s/flocker/%s/snap/s", at, UUID_STR(&id));
    CLEANUP_FREE char *got = digest(snap);
    assert_string_equal(got, want);
    shell("grep -q 'released 1 9 s' %s/flocker/%s/mark", at, UUID_STR(&id));
    crash_end();

    ok(copy(A, B, &id, NULL, "s")); /* acknowledged: must be whole after a power cut at once */
    free(crash_image(1));
    CLEANUP_FREE char *got_b = digest(snap);
    assert_string_equal(got_b, want);
    crash_end();

    ok(storage_promote(B->storage, &id, "s", 64 << 20, 2));
    free(crash_image(1));
    shell("grep -q 'owned 2 ' %s/flocker/%s/mark", at, UUID_STR(&id));
    CLEANUP_FREE char *vol = xasprintf("%s/flocker/%s/vol", at, UUID_STR(&id));
    CLEANUP_FREE char *got_vol = digest(vol);
    assert_string_equal(got_vol, want);
    crash_end();

    ok(storage_drop(A->storage, &id));
    free(crash_image(0));
    shell("test ! -e %s/flocker/%s/vol && test ! -e %s/flocker/%s/snap/s", at, UUID_STR(&id), at,
          UUID_STR(&id));
    crash_end();
    ok(storage_destroy(B->storage, &id));
}

static void test_writable_base_is_refused(void **state)
{
    struct uuid id = node_new_dataset();
    CLEANUP_FREE char *place = node_place(A, &id);

    ok(storage_create(A->storage, &id, 0, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    ok(storage_snapshot(A->storage, &id, "s1"));
    ok(copy(A, B, &id, NULL, "s1"));
    shell("echo x >%s/x", place);
    ok(storage_snapshot(A->storage, &id, "s2"));
    shell("btrfs property set -f %s/1/state/btrfs-pool/flocker/%s/snap/s1 ro false", node_dir,
          UUID_STR(&id));
    fails(copy(A, B, &id, "s1", "s2"), ERR_CORRUPT, "made writable");
    for (int i = 0; i < NODES; i++)
        ok(storage_destroy(nodes[i].storage, &id));
}

static void test_full_and_read_only(void **state)
{
    struct uuid id = node_new_dataset(), other = node_new_dataset();
    CLEANUP_FREE char *place = node_place(A, &id);

    ok(storage_create(A->storage, &id, 0, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    shell("head -c 300M /dev/urandom >%s/big", place);
    ok(storage_snapshot(A->storage, &id, "s"));
    shell("fallocate -l 1600M %s/1/state/btrfs-pool/fill || fallocate -l 1400M "
          "%s/1/state/btrfs-pool/fill2 || true",
          node_dir, node_dir);
    shell("dd if=/dev/zero of=%s/1/state/btrfs-pool/fill3 bs=1M status=none 2>/dev/null || true",
          node_dir);
    fails(copy(A, B, &id, NULL, "s"), ERR_NO_SPACE, NULL);
    assert_int_equal(atomic_load(&B->no_space), 1);
    shell("rm %s/1/state/btrfs-pool/fill* && sync -f %s/1/state/btrfs-pool", node_dir, node_dir);
    ok(copy(A, B, &id, NULL, "s"));
    shell("mount -o remount,ro %s/1/state/btrfs-pool", node_dir);
    fails(storage_create(B->storage, &other, 0, NULL, 1), ERR_IO, "ead-only");
    shell("mount -o remount,rw %s/1/state/btrfs-pool", node_dir);
    ok(storage_create(B->storage, &other, 0, NULL, 1));
    ok(storage_destroy(B->storage, &other));
    for (int i = 0; i < NODES; i++)
        ok(storage_destroy(nodes[i].storage, &id));
}

static char *groups(int node, const char *level)
{
    return shell_out("btrfs qgroup show %s/%d/state/btrfs-pool 2>/dev/null | awk '{print $1}' | "
                     "grep '^%s/' | grep -v '^0/5$' | tr '\\n' ' '",
                     node_dir, node, level);
}

/* A dataset that comes by a move and goes leaves no quota group: neither its own, nor those of its subvolumes. */
static void test_quota_groups_go(void **state)
{
    struct uuid id = node_new_dataset();
    CLEANUP_FREE char *place = node_place(A, &id);
    CLEANUP_FREE char *none = groups(1, "0");

    ok(storage_create(A->storage, &id, 64 << 20, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    shell("head -c 5M /dev/urandom >%s/f", place);
    ok(storage_release(A->storage, &id, 1, 9, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    ok(storage_promote(B->storage, &id, "s", 64 << 20, 2));
    ok(storage_prune(B->storage, &id, NULL, NULL));
    shell("btrfs subvolume sync %s/1/state/btrfs-pool", node_dir);
    CLEANUP_FREE char *one = groups(1, "1");
    assert_true(str_has_prefix(one, "1/"));
    for (int i = 0; i < NODES; i++) {
        ok(storage_destroy(nodes[i].storage, &id));
        CLEANUP_FREE char *own = groups(i, "1");
        assert_string_equal(own, "");
        shell("btrfs subvolume sync %s/%d/state/btrfs-pool", node_dir, i);
        shell("sync -f %s/%d/state/btrfs-pool", node_dir, i);
        struct volume_state *v = NULL;
        size_t n;

        ok(storage_list(nodes[i].storage, &v, &n));
        for (size_t j = 0; j < n; j++)
            volume_state_done(&v[j]);
        free(v);
    }
    CLEANUP_FREE char *left = groups(1, "0");
    assert_string_equal(left, none);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_foreign_file),
        cmocka_unit_test(test_empty_file_and_size),
        cmocka_unit_test(test_lost_pool),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_quota_groups_go),
        cmocka_unit_test(test_durable),
        cmocka_unit_test(test_writable_base_is_refused),
        cmocka_unit_test(test_full_and_read_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
