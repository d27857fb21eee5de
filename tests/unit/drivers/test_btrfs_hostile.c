/* Streams that no kernel makes, from a host that wants to harm: each is refused, with a sentence; nothing outside the volume is touched, and
 * nothing of it stays. */
#include "btrfs_nodes.h"
#include "content.h"
#include "send_build.h"

#include "base/str.h"
#include "drivers/btrfs/apply.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <zlib.h>

static const struct uuid ID = {{0xab, 1}}, OTHER = {{0xcd, 2}};

static struct uuid dataset;
static char *outside; /* a folder beside the volumes, in the same file system, with what an attacker might want */
static char *outside_was;

struct feed {
    const struct str *s;
    int fd;
};

static void *feed_it(void *cookie)
{
    struct feed *f = cookie;

    for (size_t at = 0; at < f->s->len;) {
        ssize_t n = write(f->fd, f->s->data + at, f->s->len - at);

        if (n <= 0)
            break;
        at += (size_t)n;
    }
    close(f->fd);
    return NULL;
}

static struct err *receive(const struct str *s, const char *base)
{
    struct stream_spec spec = {.base = base, .snapshot = "x", .identity = UUID_STR(&ID)};
    char identity[UUID_TEXT_SIZE];
    pthread_t t;
    int p[2];

    spec.identity = uuid_format(&ID, identity);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    struct feed f = {s, p[1]};

    assert_int_equal(pthread_create(&t, NULL, feed_it, &f), 0);
    struct err *e = storage_receive(B->storage, &dataset, &spec, p[0]);

    close(p[0]);
    pthread_join(t, NULL);
    return e;
}

static void assert_untouched(int line)
{
    CLEANUP_FREE char *now = content_list(outside), *when = xasprintf("line %d", line);
    struct volume_state v;
    struct stream_point p;

    content_same(now, outside_was, when);
    assert_tidy(&dataset);
    ok(storage_observe(B->storage, &dataset, &v));
    assert_int_equal(v.n_snapshots, 1); /* the base */
    volume_state_done(&v);
    ok(storage_stream_point(B->storage, &dataset, &p));
    assert_null(p.snapshot);
}

static void refused_(struct str *s, enum err_code code, const char *part, int line)
{
    send_put_end(s);
    struct err *e = receive(s, NULL);

    if (!e)
        fail_msg("line %d: was taken", line);
    if (e->code != code || !strstr(e->text, part))
        fail_msg("line %d: %s: %s", line, err_code_name(e->code), e->text);
    err_free(e);
    str_done(s);
    assert_untouched(line);
}
#define refused(s, code, part) refused_(s, code, part, __LINE__)

static struct str begun(void)
{
    struct str s = {0};

    send_put_header(&s, 1);
    send_put_subvol(&s, &ID);
    return s;
}

/* With a link `l` to the folder outside, a link `f` to a file in it, and a folder `d` of its own. */
static struct str with_links(void)
{
    struct str s = begun();
    CLEANUP_FREE char *file = xasprintf("%s/file", outside);

    send_put_path(&s, SEND_SYMLINK, "l", ATTR_PATH_LINK, outside);
    send_put_path(&s, SEND_SYMLINK, "f", ATTR_PATH_LINK, file);
    send_put_path(&s, SEND_SYMLINK, "up", ATTR_PATH_LINK, "..");
    send_put_path(&s, SEND_MKDIR, "d", 0, NULL);
    send_put_path(&s, SEND_MKFILE, "own", 0, NULL);
    return s;
}

static void put_number(struct str *s, enum send_type type, const char *path, unsigned attribute, uint64_t v, unsigned second,
                       uint64_t w)
{
    size_t at = send_begin(s, type);

    send_put_text(s, ATTR_PATH, path);
    send_put_64(s, attribute, v);
    if (second)
        send_put_64(s, second, w);
    send_end(s, at);
}

static void put_times(struct str *s, const char *path)
{
    size_t at = send_begin(s, SEND_UTIMES);

    send_put_text(s, ATTR_PATH, path);
    send_put_time(s, ATTR_ATIME, 1);
    send_put_time(s, ATTR_MTIME, 1);
    send_end(s, at);
}

static void put_xattr(struct str *s, enum send_type type, const char *path, const char *name)
{
    size_t at = send_begin(s, type);

    send_put_text(s, ATTR_PATH, path);
    send_put_text(s, ATTR_XATTR_NAME, name);
    if (type == SEND_SET_XATTR)
        send_put_text(s, ATTR_XATTR_DATA, "evil");
    send_end(s, at);
}

static void put_clone(struct str *s, const char *path, const struct uuid *from, const char *from_path)
{
    size_t at = send_begin(s, SEND_CLONE);

    send_put_64(s, ATTR_OFFSET, 0);
    send_put_text(s, ATTR_PATH, path);
    send_put(s, ATTR_CLONE_UUID, from->b, 16);
    send_put_64(s, ATTR_CLONE_CTRANSID, 1);
    send_put_text(s, ATTR_CLONE_PATH, from_path);
    send_put_64(s, ATTR_CLONE_OFFSET, 0);
    send_put_64(s, ATTR_CLONE_LENGTH, 4096);
    send_end(s, at);
}

static void put_node(struct str *s, const char *path, uint64_t mode, uint64_t rdev)
{
    put_number(s, SEND_MKNOD, path, ATTR_MODE, mode, ATTR_RDEV, rdev);
}

/* ---- streams as such ---- */

static void test_no_stream(void **state)
{
    struct str s = {0};

    str_append(&s, "nonsense, and more of it");
    refused(&s, ERR_CORRUPT, "no btrfs stream");
    send_put_header(&s, 1);
    refused(&s, ERR_CORRUPT, "does not begin with a subvolume");
    s = begun();
    send_put_subvol(&s, &ID);
    refused(&s, ERR_CORRUPT, "second subvolume");
    s = begun();
    send_put_snapshot(&s, &OTHER, &ID);
    refused(&s, ERR_CORRUPT, "second subvolume");
    s = begun();
    send_put_end(&s);
    send_put_header(&s, 1); /* a second stream behind it */
    send_put_subvol(&s, &OTHER);
    refused(&s, ERR_CORRUPT, "follows its end");
    s = begun();
    send_put_path(&s, SEND_MKFILE, "a", 0, NULL);
    s.data[s.len - 1] ^= 1;
    refused(&s, ERR_CORRUPT, "checksum");
    s = begun();
    str_append_bytes(&s, "\xff\xff\xff\xff\x0f\0\0\0\0\0", 10); /* a command of 4 GiB */
    refused(&s, ERR_CORRUPT, "longer than any");
}

static void test_wrong_subvolume(void **state)
{
    struct str s = {0};

    send_put_header(&s, 1);
    send_put_subvol(&s, &OTHER);
    refused(&s, ERR_CORRUPT, "what arrived is snapshot");
    send_put_header(&s, 1);
    send_put_snapshot(&s, &ID, &OTHER); /* of something that was not agreed */
    refused(&s, ERR_CORRUPT, "an increment, not whole");
    send_put_header(&s, 1);
    send_put_snapshot(&s, &ID, &OTHER);
    send_put_end(&s);
    fails(receive(&s, "base"), ERR_CORRUPT, "what arrived is an increment from snapshot");
    s.len = 0;
    send_put_header(&s, 1);
    send_put_subvol(&s, &ID);
    send_put_end(&s);
    fails(receive(&s, "base"), ERR_CORRUPT, "whole, not an increment");
    str_done(&s);
    assert_untouched(__LINE__);
}

/* ---- out of the volume ---- */

static void test_paths(void **state)
{
    static const char *const bad[] = {"/etc/evil", "../evil", "d/../../evil", "..", "."};
    CLEANUP_FREE char *absolute = xasprintf("%s/evil", outside);

    for (size_t i = 0; i <= ARRAY_SIZE(bad); i++) {
        const char *path = i < ARRAY_SIZE(bad) ? bad[i] : absolute;
        struct str s = with_links();

        send_put_path(&s, SEND_MKFILE, path, 0, NULL);
        refused(&s, ERR_CORRUPT, "stay below");
        s = with_links();
        send_put_path(&s, SEND_RENAME, "own", ATTR_PATH_TO, path);
        refused(&s, ERR_CORRUPT, "stay below");
        s = with_links();
        send_put_write(&s, path, 0, "evil");
        refused(&s, ERR_CORRUPT, "stay below");
        s = with_links();
        put_number(&s, SEND_CHMOD, path, ATTR_MODE, 0777, 0, 0);
        refused(&s, ERR_CORRUPT, "stay below");
    }
}

/* A link in the middle of a path, and at its end. */
static void test_through_links(void **state)
{
    static const char *const files[] = {"l/file", "f", "up/outside/file", "l/sub/file"};

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        const char *path = files[i];
        struct str s = with_links();

        send_put_write(&s, path, 0, "evil");
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        put_number(&s, SEND_TRUNCATE, path, ATTR_SIZE, 0, 0, 0);
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        put_number(&s, SEND_CHMOD, path, ATTR_MODE, 0777, 0, 0);
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        put_clone(&s, path, &ID, "own");
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        put_clone(&s, "own", &ID, path);
        refused(&s, ERR_CORRUPT, "leave the volume");
    }
    static const char *const below[] = {"l/file", "l/sub/file", "up/outside/file", "l/evil"};

    for (size_t i = 0; i < ARRAY_SIZE(below); i++) {
        const char *path = below[i];
        static const enum send_type plain[] = {SEND_MKFILE, SEND_MKDIR, SEND_MKFIFO, SEND_MKSOCK, SEND_UNLINK, SEND_RMDIR};
        struct str s;

        for (size_t k = 0; k < ARRAY_SIZE(plain); k++) {
            s = with_links();
            send_put_path(&s, plain[k], path, 0, NULL);
            refused(&s, ERR_CORRUPT, "leave the volume");
        }
        s = with_links();
        put_node(&s, path, 020666, 0x103);
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        send_put_path(&s, SEND_SYMLINK, path, ATTR_PATH_LINK, "x");
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        send_put_path(&s, SEND_LINK, path, ATTR_PATH_LINK, "own");
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        send_put_path(&s, SEND_LINK, "mine", ATTR_PATH_LINK, path);
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        send_put_path(&s, SEND_RENAME, path, ATTR_PATH_TO, "mine");
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        send_put_path(&s, SEND_RENAME, "own", ATTR_PATH_TO, path);
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        put_number(&s, SEND_CHOWN, path, ATTR_UID, 66, ATTR_GID, 66);
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        put_times(&s, path);
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        put_xattr(&s, SEND_SET_XATTR, path, "user.evil");
        refused(&s, ERR_CORRUPT, "leave the volume");
        s = with_links();
        put_xattr(&s, SEND_REMOVE_XATTR, path, "user.colour");
        refused(&s, ERR_CORRUPT, "leave the volume");
    }
}

/* What is open under a name is not what the name means after it was exchanged for a link. */
static void test_exchanged_for_a_link(void **state)
{
    struct str s = with_links();

    send_put_path(&s, SEND_MKFILE, "d/file", 0, NULL); /* the folder is known now, and the file open */
    send_put_path(&s, SEND_RENAME, "d", ATTR_PATH_TO, "was");
    send_put_path(&s, SEND_RENAME, "l", ATTR_PATH_TO, "d");
    send_put_write(&s, "d/file", 0, "evil");
    refused(&s, ERR_CORRUPT, "leave the volume");
    s = with_links();
    send_put_write(&s, "own", 0, "good");
    send_put_path(&s, SEND_UNLINK, "own", 0, NULL);
    send_put_path(&s, SEND_RENAME, "f", ATTR_PATH_TO, "own");
    send_put_write(&s, "own", 0, "evil");
    refused(&s, ERR_CORRUPT, "leave the volume");
    s = with_links();
    send_put_path(&s, SEND_MKDIR, "d/e", 0, NULL);
    send_put_path(&s, SEND_MKFILE, "d/e/file", 0, NULL);
    send_put_path(&s, SEND_UNLINK, "d/e/file", 0, NULL);
    send_put_path(&s, SEND_RMDIR, "d/e", 0, NULL);
    send_put_path(&s, SEND_RENAME, "l", ATTR_PATH_TO, "d/e");
    send_put_path(&s, SEND_MKFILE, "d/e/evil", 0, NULL);
    refused(&s, ERR_CORRUPT, "leave the volume");
}

/* Links themselves may get an owner, times and attributes; what they point to does not. */
static void test_links_themselves(void **state)
{
    struct str s = with_links();

    put_number(&s, SEND_CHOWN, "f", ATTR_UID, 66, ATTR_GID, 66);
    put_times(&s, "f");
    put_xattr(&s, SEND_SET_XATTR, "f", "trusted.evil");
    send_put_path(&s, SEND_LINK, "f2", ATTR_PATH_LINK, "f");
    send_put_path(&s, SEND_RENAME, "f2", ATTR_PATH_TO, "own");
    send_put_path(&s, SEND_UNLINK, "f", 0, NULL);
    send_put_end(&s);
    ok(receive(&s, NULL));
    str_done(&s);
    ok(storage_snapshot_delete(B->storage, &dataset, "x"));
    assert_untouched(__LINE__);
}

static void test_clones_of_others(void **state)
{
    struct str s = with_links();
    CLEANUP_FREE char *identity = NULL;
    struct uuid foreign;

    put_clone(&s, "own", &OTHER, "file");
    refused(&s, ERR_CORRUPT, "neither it nor its base");
    /* a snapshot that is here, but was not agreed */
    ok(storage_snapshot_identity(B->storage, &dataset, "base", &identity));
    assert_true(uuid_parse(identity, &foreign));
    s = with_links();
    put_clone(&s, "own", &foreign, "d/text");
    refused(&s, ERR_CORRUPT, "neither it nor its base");
}

/* ---- what must not be opened ---- */

static void test_devices(void **state)
{
    static const char *const names[] = {"device", "block", "fifo", "socket"};
    CLEANUP_FREE char *bytes = shell_out("echo 'not to be touched' >%s/victim && losetup -f --show %s/victim", node_dir, node_dir);
    struct stat st;

    bytes[strcspn(bytes, "\n")] = '\0';
    assert_int_equal(stat(bytes, &st), 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        for (int how = 0; how < 4; how++) {
            struct str s = with_links();

            put_node(&s, "device", 020666, 0x105); /* zero */
            put_node(&s, "block", 060666, st.st_rdev);
            send_put_path(&s, SEND_MKFIFO, "fifo", 0, NULL);
            send_put_path(&s, SEND_MKSOCK, "socket", 0, NULL);
            if (how == 0)
                send_put_write(&s, names[i], 0, "evil");
            else if (how == 1)
                put_number(&s, SEND_TRUNCATE, names[i], ATTR_SIZE, 0, 0, 0);
            else if (how == 2)
                put_clone(&s, names[i], &ID, "own");
            else
                put_clone(&s, "own", &ID, names[i]);
            refused(&s, ERR_CORRUPT, "does not fit what is here");
        }
    }
    shell("sync; test \"$(cat %s/victim)\" = 'not to be touched' && losetup -d %s", node_dir, bytes);
    struct str s = with_links();
    send_put_write(&s, "d", 0, "into a folder");
    refused(&s, ERR_CORRUPT, "does not fit");
}

static void test_what_is_not_there(void **state)
{
    struct str s = begun();

    send_put_write(&s, "none", 0, "x");
    refused(&s, ERR_CORRUPT, "No such file");
    s = begun();
    send_put_path(&s, SEND_MKFILE, "none/x", 0, NULL);
    refused(&s, ERR_CORRUPT, "No such file");
    s = with_links();
    send_put_path(&s, SEND_MKFILE, "own", 0, NULL);
    refused(&s, ERR_CORRUPT, "exists");
    s = with_links();
    send_put_path(&s, SEND_RENAME, "d", ATTR_PATH_TO, "d/e");
    refused(&s, ERR_CORRUPT, "does not fit");
    s = with_links();
    put_xattr(&s, SEND_SET_XATTR, "own", "nonsense");
    refused(&s, ERR_CORRUPT, "does not fit");
    s = begun();
    send_put_path(&s, SEND_RMDIR, "\x1b[31m\xff", 0, NULL); /* the sentence is fit to be read */
    refused(&s, ERR_CORRUPT, "'?[31m?'");
}

/* ---- compressed data that the kernel does not take as they are ---- */

static void test_encoded_by_hand(void **state)
{
    char plain[5000];
    uint8_t packed[5000];
    uLongf n = sizeof(packed);
    struct str s = {0};
    CLEANUP_FREE char *there = snapshot_path(B, &dataset, "x");

    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (char)('a' + i % 26);
    assert_int_equal(compress2(packed, &n, (uint8_t *)plain, sizeof(plain), 6), Z_OK);
    for (int bad = 0; bad < 2; bad++) {
        send_put_header(&s, 2);
        send_put_subvol(&s, &ID);
        send_put_path(&s, SEND_MKFILE, "f", 0, NULL);
        size_t at = send_begin(&s, SEND_ENCODED_WRITE);
        send_put_text(&s, ATTR_PATH, "f");
        send_put_64(&s, ATTR_OFFSET, 10); /* not a sector: refused by the kernel */
        send_put_64(&s, ATTR_UNENCODED_FILE_LENGTH, 4000);
        send_put_64(&s, ATTR_UNENCODED_LENGTH, 5000);
        send_put_64(&s, ATTR_UNENCODED_OFFSET, 700);
        send_put_32(&s, ATTR_COMPRESSION, BTRFS_ENCODED_IO_COMPRESSION_ZLIB);
        if (bad)
            memset(packed + 10, 0xee, 20);
        send_put_data(&s, packed, n);
        send_end(&s, at);
        if (bad) {
            refused(&s, ERR_CORRUPT, "damaged");
            continue;
        }
        send_put_end(&s);
        ok(receive(&s, NULL));
        str_done(&s);
        CLEANUP_FREE char *path = xasprintf("%s/f", there);
        FILE *f = fopen(path, "re");
        char bytes[4200];
        assert_non_null(f);
        assert_int_equal(fread(bytes, 1, sizeof(bytes), f), 4010);
        (void)fclose(f);
        assert_memory_equal(bytes, "\0\0\0\0\0\0\0\0\0\0", 10);
        assert_memory_equal(bytes + 10, plain + 700, 4000);
        ok(storage_snapshot_delete(B->storage, &dataset, "x"));
    }
}

/* ---- at random ---- */

static const char *const parts[] = {"a", "b", "l", "up", "f", "d", "file", "fifo", "..", "outside", "sub", ""};

static void random_path(const struct random *r, char *to)
{
    size_t n = 1 + random_below(r, 3);

    *to = '\0';
    for (size_t i = 0; i < n; i++) {
        if (i || !random_below(r, 40))
            strcat(to, "/");
        strcat(to, parts[random_below(r, ARRAY_SIZE(parts) - (random_below(r, 30) != 0))]);
    }
}

static void random_command(const struct random *r, struct str *s)
{
    static const char *const targets[] = {"..", "../..", "a", "d", "/", "/tmp", "../outside"};
    enum send_type type = (enum send_type)(SEND_MKFILE + random_below(r, SEND_UTIMES - SEND_MKFILE + 1));
    char path[64], other[64];

    random_path(r, path);
    random_path(r, other);
    switch (type) {
    case SEND_MKNOD:
        put_node(s, path, 020600, 0x103);
        return;
    case SEND_SYMLINK: {
        const char *to = random_below(r, 2) ? targets[random_below(r, ARRAY_SIZE(targets))] : outside;
        send_put_path(s, type, path, ATTR_PATH_LINK, to);
        return;
    }
    case SEND_RENAME:
        send_put_path(s, type, path, ATTR_PATH_TO, other);
        return;
    case SEND_LINK:
        send_put_path(s, type, path, ATTR_PATH_LINK, other);
        return;
    case SEND_SET_XATTR:
    case SEND_REMOVE_XATTR:
        put_xattr(s, type, path, random_below(r, 2) ? "user.colour" : "trusted.evil");
        return;
    case SEND_WRITE:
        send_put_write(s, path, random_below(r, 9000), "evil bytes");
        return;
    case SEND_CLONE:
        put_clone(s, path, random_below(r, 9) ? &ID : &OTHER, other);
        return;
    case SEND_TRUNCATE:
        put_number(s, type, path, ATTR_SIZE, random_below(r, 9000), 0, 0);
        return;
    case SEND_CHMOD:
        put_number(s, type, path, ATTR_MODE, 0777, 0, 0);
        return;
    case SEND_CHOWN:
        put_number(s, type, path, ATTR_UID, 66, ATTR_GID, 66);
        return;
    case SEND_UTIMES:
        put_times(s, path);
        return;
    default:
        send_put_path(s, type, path, 0, NULL);
    }
}

/* Commands without sense, and on after each that fails: whatever is in the volume then, nothing outside is touched. */
static void test_random_commands(void **state)
{
    enum { ROUNDS = 60, COMMANDS = 1500 };
    CLEANUP_FREE char *pool = pool_of(B), *work = xasprintf("%s/flocker/work", pool);
    struct send_stream *p = xcalloc(1, sizeof(*p));
    uint64_t seed = 11, done = 0;
    struct random r = random_seeded(&seed);

    for (int round = 0; round < ROUNDS; round++) {
        shell("btrfs -q subvolume create %s", work);
        CLEANUP_CLOSE int root = open(work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct applier *a = applier_new(&(struct apply_target){root, -1, ID, UUID_NIL});

        for (int i = 0; i < COMMANDS; i++) {
            CLEANUP_STR struct str s = {0};
            struct send_command c;
            size_t used;

            random_command(&r, &s);
            send_stream_resume(p, 1, 0);
            CLEANUP_ERR struct err *e = send_stream_next(p, (uint8_t *)s.data, s.len, &used, &c);
            if (!e)
                e = applier_apply(a, &c);
            done += !e;
            assert_true(!e || *e->text);
        }
        applier_free(a);
        CLEANUP_FREE char *now = content_list(outside);
        content_same(now, outside_was, "random commands");
        shell("btrfs -q subvolume delete %s", work);
    }
    print_message("%d of %d random commands could be applied\n", (int)done, ROUNDS * COMMANDS);
    assert_true(done > ROUNDS * COMMANDS / 50);
    free(p);
}

/* ---- the scene ---- */

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_stream),
        cmocka_unit_test(test_wrong_subvolume),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_through_links),
        cmocka_unit_test(test_exchanged_for_a_link),
        cmocka_unit_test(test_links_themselves),
        cmocka_unit_test(test_clones_of_others),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_what_is_not_there),
        cmocka_unit_test(test_encoded_by_hand),
        cmocka_unit_test(test_random_commands),
    };
    struct uuid volume = new_volume();
    CLEANUP_FREE char *place = node_place(A, &volume), *pool = pool_of(B);

    dataset = volume;
    content_make_small(place);
    ok(storage_snapshot(A->storage, &volume, "base"));
    ok(copy(A, B, &volume, NULL, "base"));
    outside = xasprintf("%s/flocker/outside", pool);
    shell("mkdir -p %s/sub && echo precious >%s/file && echo more >%s/sub/file && chmod 600 %s/file", outside, outside, outside,
          outside);
    CLEANUP_FREE char *file = xasprintf("%s/file", outside);
    if (setxattr(file, "user.colour", "blue", 4, 0) < 0)
        return 2;
    outside_was = content_list(outside);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    free(outside);
    free(outside_was);
    return rc;
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
