#include "content.h"

#include "base/str.h"
#include "node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <xxhash.h>

static void set(const char *dir, const char *file, const char *name, const void *value, size_t n)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", dir, file);

    if (lsetxattr(path, name, value, n, 0) < 0)
        fail_msg("%s of %s: %s", name, path, strerrordesc_np(errno));
}

/* Access for one more user, as setfacl writes it. */
static const uint8_t acl[] = {2,  0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2,    0, 4, 0, 232, 3,   0,   0,  4,   0,
                              4,  0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
/* cap_net_bind_service. */
static const uint8_t capability[20] = {1, 0, 0, 2, 0, 4};

void content_make_small(const char *dir)
{
    shell("cd %s && mkdir -p d/e && echo hello >d/file && ln d/file hard && ln -s /etc/passwd soft && mkfifo fifo && "
          "mknod node c 1 3 && yes 'compressible words' | head -c 150000 >d/text && head -c 5000 /dev/urandom >random && "
          "cp --reflink=always d/text d/e/clone && truncate -s 300000 sparse && chmod 4711 d/file && chown 7:8 d && "
          "sync -f .",
          dir);
    set(dir, "d/file", "user.colour", "bl\0e", 4);
    set(dir, "d", "system.posix_acl_default", acl, sizeof(acl));
}

void content_make(const char *dir)
{
    CLEANUP_FREE char *value = xcalloc(1, 3000);

    content_make_small(dir);
    shell("cd %s && mkdir -p deep/1/2/3/4/5 many 'odd name' && for i in $(seq 100); do echo $i >many/$i; done && "
          "for n in 0 1 2047 2048 4095 4096 4097 131072 131073 900000; do head -c $n /dev/urandom >deep/1/$n; done && "
          "yes 'some more text' | head -c 3000000 >deep/1/2/text && mknod deep/block b 7 3 && "
          "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"deep/socket\")' && "
          "ln deep/1/4096 many/link && ln deep/1/4096 'odd name/link' && ln -s 'dangling \xc3\xa9' deep/soft && "
          "echo x >\"odd name/$(printf 'new\\nline \\303\\251')\" && echo y >\"odd name/$(printf '%%0255d' 0)\" && "
          "fallocate -n -l 500000 deep/1/1 && fallocate -l 300000 deep/reserved && "
          "truncate -s 5M deep/holes && for at in 1 700 3000; do dd if=/dev/urandom of=deep/holes bs=1k seek=$at count=9 "
          "conv=notrunc status=none; done && truncate -s 9M deep/holes && "
          "cp --reflink=always deep/1/900000 deep/1/2/3/copy && echo end >>deep/1/2/3/copy && "
          "touch -d '1969-12-31 23:59:58.25 UTC' many/1 && touch -h -d '2040-01-01' soft && chmod 2755 many && chmod 1777 deep/1 && "
          "chmod 0 many/2 && chown 1000:1000 many/3 && chown -h 55:66 deep/soft && sync -f .",
          dir);
    set(dir, "many/4", "system.posix_acl_access", acl, sizeof(acl));
    set(dir, "many/5", "security.capability", capability, sizeof(capability));
    set(dir, "many/6", "user.large", value, 3000);
    set(dir, "many/6", "user.empty", "", 0);
    set(dir, "deep/soft", "trusted.of-a-link", "1", 1);
    set(dir, "deep/block", "security.of-a-device", "1", 1);
    set(dir, ".", "user.of-the-root", "1", 1);
    shell("chmod 751 %s && chown 3:4 %s", dir, dir);
}

void content_change(const char *dir, int lap)
{
    shell("cd %s && l=%d && mkdir -p laps/$l && echo $l >laps/$l/f && echo $l >>d/file && "
          "dd if=/dev/urandom of=deep/1/900000 bs=1000 count=9 seek=$((l * 17)) conv=notrunc status=none && "
          "cp --reflink=always deep/1/900000 laps/$l/clone && rm -f many/$((l + 20)) && "
          "ln -f d/file many/hard$l && mv many/$((l + 50)) laps/$l/moved && mv -T deep deep.x && mkdir deep && "
          "mv deep.x deep/old && mv deep/old/* deep/ && rmdir deep/old && truncate -s $((2000000 - l * 40000)) deep/1/2/text && "
          "rm -rf laps/$((l - 3)) && touch many && "
          "mv many/7 swap && mv many/8 many/7 && mv swap many/8 && chmod $((l %% 7))55 'odd name'",
          dir, lap);
    set(dir, "many/6", "user.lap", &lap, sizeof(lap));
    if (lap % 4 == 3) {
        CLEANUP_FREE char *path = xasprintf("%s/many/6", dir);

        assert_int_equal(removexattr(path, "user.lap"), 0);
    }
}

/* ---- the list ---- */

static void list_attributes(const char *path, struct str *out)
{
    char names[8192], value[8192];
    ssize_t n = llistxattr(path, names, sizeof(names));
    uint64_t sum = 0;

    for (char *p = names; p < names + n; p += strlen(p) + 1) {
        ssize_t size = lgetxattr(path, p, value, sizeof(value));

        assert_true(size >= 0);
        sum += XXH64(value, (size_t)size, XXH64(p, strlen(p), 0)); /* in any order */
    }
    if (n > 0)
        str_appendf(out, " x%016llx", (unsigned long long)sum);
}

static void list_bytes(const char *path, const struct stat *st, struct str *out)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    if (!st->st_size)
        return;
    void *p = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);

    assert_true(p != MAP_FAILED);
    str_appendf(out, " %lld %016llx", (long long)st->st_size, (unsigned long long)XXH64(p, (size_t)st->st_size, 0));
    munmap(p, (size_t)st->st_size);
}

static void list_one(const char *path, const char *shown, struct str *out)
{
    struct stat st;
    char target[4096];

    assert_int_equal(lstat(path, &st), 0);
    str_appendf(out, "%s %o %u:%u %lld.%09ld %llx", shown, (unsigned)st.st_mode, st.st_uid, st.st_gid,
                (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (unsigned long long)st.st_rdev);
    if (!S_ISDIR(st.st_mode))
        str_appendf(out, " n%u", (unsigned)st.st_nlink);
    list_attributes(path, out);
    if (S_ISREG(st.st_mode))
        list_bytes(path, &st, out);
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(path, target, sizeof(target) - 1);

        assert_true(n > 0);
        target[n] = '\0';
        str_appendf(out, " -> %s", target);
    }
    str_append(out, "\n");
}

static void list_below(const char *path, const char *shown, struct str *out)
{
    struct dirent **names;
    struct stat st;

    list_one(path, shown, out);
    if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return;
    int n = scandir(path, &names, NULL, alphasort);

    assert_true(n >= 0);
    for (int i = 0; i < n; i++) {
        CLEANUP_FREE char *p = xasprintf("%s/%s", path, names[i]->d_name), *s = xasprintf("%s/%s", shown, names[i]->d_name);

        if (!streq(names[i]->d_name, ".") && !streq(names[i]->d_name, ".."))
            list_below(p, s, out);
        free(names[i]);
    }
    free(names);
}

char *content_list(const char *dir)
{
    struct str out = {0};

    list_below(dir, ".", &out);
    return str_steal(&out);
}

void content_same(const char *got, const char *want, const char *when)
{
    size_t at = 0;

    if (streq(got, want))
        return;
    for (size_t i = 0; got[i] && got[i] == want[i]; i++) {
        if (got[i] == '\n')
            at = i + 1;
    }
    fail_msg("%s: differs: got '%.*s', wanted '%.*s'", when, (int)strcspn(got + at, "\n"), got + at,
             (int)strcspn(want + at, "\n"), want + at);
}
