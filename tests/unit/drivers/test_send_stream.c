/* The parser of send streams, the checkpoints' notes, and decompression: bytes in, structure out. argv[1]: the folder with streams that
 * a kernel made. */
#include "send_build.h"

#include "drivers/btrfs/decompress.h"
#include "drivers/btrfs/point.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <dirent.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

static const char *corpus;
static const struct uuid ID = {{1, 2, 3}};

/* Feeds all; *ret_n: commands taken. */
static struct err *feed(const struct str *stream, size_t *ret_n, bool *ret_ended)
{
    struct send_stream *s = xcalloc(1, sizeof(*s));
    struct send_command c;
    struct err *e = NULL;
    size_t at = 0, used = 1;

    *ret_n = 0;
    send_stream_init(s);
    while (used && !e) {
        e = send_stream_next(s, (const uint8_t *)stream->data + at, stream->len - at, &used, &c);
        at += used;
        *ret_n += !e && used && c.type != SEND_HEADER;
    }
    *ret_ended = !e && s->phase == SEND_AT_END && at == stream->len;
    free(s);
    return e;
}

static void taken(struct str *stream, size_t n)
{
    bool ended;
    size_t got;
    struct err *e = feed(stream, &got, &ended);

    if (e)
        fail_msg("%s", e->text);
    assert_true(ended);
    assert_int_equal(got, n);
    str_done(stream);
}

static void refused_(struct str *stream, enum err_code code, const char *part, int line)
{
    bool ended;
    size_t got;
    struct err *e = feed(stream, &got, &ended);

    if (!e)
        fail_msg("line %d: was taken", line);
    if (e->code != code || !strstr(e->text, part))
        fail_msg("line %d: %s: %s", line, err_code_name(e->code), e->text);
    err_free(e);
    str_done(stream);
}
#define refused(stream, code, part) refused_(stream, code, part, __LINE__)

static struct str begun(uint32_t version)
{
    struct str s = {0};

    send_put_header(&s, version);
    send_put_subvol(&s, &ID);
    return s;
}

/* ---- valid ---- */

static void test_smallest(void **state)
{
    struct str s = begun(1);

    send_put_path(&s, SEND_MKFILE, "a", 0, NULL);
    send_put_write(&s, "a", 5, "text");
    send_put_end(&s);
    taken(&s, 4);
}

static void test_values(void **state)
{
    struct send_stream *p = xcalloc(1, sizeof(*p));
    CLEANUP_STR struct str s = {0};
    struct send_command c;
    size_t at, used;

    send_stream_resume(p, 2, 100);
    at = send_begin(&s, SEND_WRITE);
    send_put_text(&s, ATTR_PATH, "dir/file");
    send_put_64(&s, ATTR_OFFSET, 1ull << 40);
    send_put_data(&s, "data", 4);
    send_end(&s, at);
    assert_null(send_stream_next(p, (uint8_t *)s.data, s.len - 1, &used, &c));
    assert_int_equal(used, 0);
    assert_null(send_stream_next(p, (uint8_t *)s.data, s.len, &used, &c));
    assert_int_equal(used, s.len);
    assert_int_equal(c.type, SEND_WRITE);
    assert_string_equal(c.path, "dir/file");
    assert_int_equal(c.offset, 1ull << 40);
    assert_int_equal(c.n_data, 4);
    assert_memory_equal(c.data, "data", 4);
    assert_int_equal(p->offset, 100 + s.len);
    s.len = 0;
    at = send_begin(&s, SEND_UTIMES);
    send_put_text(&s, ATTR_PATH, "");
    send_put_time(&s, ATTR_ATIME, 11);
    send_put_time(&s, ATTR_MTIME, UINT64_MAX); /* a second before 1970 */
    send_end(&s, at);
    assert_null(send_stream_next(p, (uint8_t *)s.data, s.len, &used, &c));
    assert_string_equal(c.path, "");
    assert_int_equal(c.atime.tv_sec, 11);
    assert_int_equal(c.mtime.tv_sec, -1);
    free(p);
}

/* The largest command that a kernel makes, and one byte more. */
static void test_largest(void **state)
{
    for (uint32_t version = 1; version <= 2; version++) {
        size_t max = version == 1 ? SEND_COMMAND_MAX_V1 : SEND_COMMAND_MAX;

        for (size_t more = 0; more < 2; more++) {
            struct str s = begun(version);
            size_t at = send_begin(&s, SEND_WRITE);

            send_put_text(&s, ATTR_PATH, "f");
            send_put_64(&s, ATTR_OFFSET, 0);
            size_t head = s.len - at + (version == 1 ? 4 : 2);
            CLEANUP_FREE char *bytes = xcalloc(1, max + 1 - head);
            if (version == 1)
                send_put(&s, ATTR_DATA, bytes, max + more - head);
            else
                send_put_data(&s, bytes, max + more - head);
            send_end(&s, at);
            send_put_end(&s);
            if (more)
                refused(&s, ERR_CORRUPT, "longer than any");
            else
                taken(&s, 3);
        }
    }
}

/* ---- what is refused ---- */

static void test_not_a_stream(void **state)
{
    struct str s = {0};

    str_append(&s, "GET / HTTP/1.1\r\n\r\n");
    refused(&s, ERR_CORRUPT, "no btrfs stream");
    str_append(&s, "btrfX");
    refused(&s, ERR_CORRUPT, "no btrfs stream");
    send_put_header(&s, 0);
    refused(&s, ERR_CORRUPT, "no version");
    send_put_header(&s, 3);
    refused(&s, ERR_UNSUPPORTED, "version 3");
}

static void test_order(void **state)
{
    struct str s = {0};

    send_put_header(&s, 1);
    send_put_path(&s, SEND_MKFILE, "a", 0, NULL);
    refused(&s, ERR_CORRUPT, "does not begin with a subvolume");
    send_put_header(&s, 1);
    send_put_end(&s);
    refused(&s, ERR_CORRUPT, "does not begin with a subvolume");
    s = begun(1);
    send_put_subvol(&s, &ID);
    refused(&s, ERR_CORRUPT, "second subvolume");
    s = begun(1);
    send_put_snapshot(&s, &ID, &ID);
    refused(&s, ERR_CORRUPT, "second subvolume");
    s = begun(1);
    send_put_end(&s);
    str_append(&s, "x");
    refused(&s, ERR_CORRUPT, "follows its end");
}

static void test_commands(void **state)
{
    static const struct {
        uint32_t version;
        unsigned type;
        enum err_code code;
        const char *part;
    } cases[] = {
        {1, SEND_UPDATE_EXTENT, ERR_UNSUPPORTED, "without the files' data"},
        {1, SEND_FALLOCATE, ERR_UNSUPPORTED, "command 23"},
        {1, SEND_ENCODED_WRITE, ERR_UNSUPPORTED, "command 25"},
        {2, 26, ERR_UNSUPPORTED, "command 26"}, /* fs-verity */
        {2, 0, ERR_UNSUPPORTED, "command 0"},
        {2, 65535, ERR_UNSUPPORTED, "command 65535"},
        {1, SEND_RENAME, ERR_CORRUPT, "attribute is missing"},
        {1, SEND_WRITE, ERR_CORRUPT, "attribute is missing"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct str s = begun(cases[i].version);

        send_put_path(&s, (enum send_type)cases[i].type, "f", 0, NULL);
        refused(&s, cases[i].code, cases[i].part);
    }
}

static void test_paths(void **state)
{
    char name[258], path[5000];
    static const char *const bad[] = {"/etc/passwd", "..", ".", "a/..", "../a", "a/../b", "a/./b", "a//b", "a/", "/", ""};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct str s = begun(1);

        send_put_path(&s, SEND_MKFILE, bad[i], 0, NULL);
        refused(&s, ERR_CORRUPT, "stay below");
        s = begun(1);
        send_put_path(&s, SEND_RENAME, "a", ATTR_PATH_TO, bad[i]);
        refused(&s, ERR_CORRUPT, "stay below");
        s = begun(1);
        send_put_path(&s, SEND_LINK, "a", ATTR_PATH_LINK, bad[i]);
        refused(&s, ERR_CORRUPT, "stay below");
    }
    memset(name, 'x', sizeof(name));
    name[256] = '\0';
    struct str s = begun(1);
    send_put_path(&s, SEND_MKDIR, name, 0, NULL);
    refused(&s, ERR_CORRUPT, "stay below");
    memset(path, 'y', sizeof(path));
    for (size_t i = 200; i < sizeof(path); i += 200)
        path[i] = '/';
    path[4096] = '\0';
    s = begun(1);
    send_put_path(&s, SEND_MKDIR, path, 0, NULL);
    refused(&s, ERR_CORRUPT, "too long");
    path[4095] = '\0';
    s = begun(1);
    send_put_path(&s, SEND_MKDIR, path, 0, NULL);
    send_put_end(&s);
    taken(&s, 3);
    s = begun(1);
    size_t at = send_begin(&s, SEND_MKDIR);
    send_put(&s, ATTR_PATH, "a\0b", 3);
    send_end(&s, at);
    refused(&s, ERR_CORRUPT, "NUL");
    s = begun(1); /* where a link points is nobody's business */
    send_put_path(&s, SEND_SYMLINK, "l", ATTR_PATH_LINK, "../../etc/passwd");
    send_put_end(&s);
    taken(&s, 3);
    s = begun(1);
    send_put_path(&s, SEND_SYMLINK, "l", ATTR_PATH_LINK, "");
    refused(&s, ERR_CORRUPT, "empty");
}

static struct str one_number(enum send_type type, unsigned attribute, uint64_t v, unsigned second, uint64_t w)
{
    struct str s = begun(1);
    size_t at = send_begin(&s, type);

    send_put_text(&s, ATTR_PATH, "f");
    send_put_64(&s, attribute, v);
    if (second)
        send_put_64(&s, second, w);
    send_end(&s, at);
    return s;
}

static void test_numbers(void **state)
{
    struct str s = one_number(SEND_TRUNCATE, ATTR_SIZE, 1ull << 63, 0, 0);

    refused(&s, ERR_CORRUPT, "beyond any file");
    s = one_number(SEND_CHMOD, ATTR_MODE, 010000, 0, 0);
    refused(&s, ERR_CORRUPT, "no mode");
    s = one_number(SEND_CHMOD, ATTR_MODE, 1ull << 32, 0, 0);
    refused(&s, ERR_CORRUPT, "too large");
    s = one_number(SEND_CHOWN, ATTR_UID, UINT32_MAX, ATTR_GID, 0);
    refused(&s, ERR_CORRUPT, "no owner");
    s = one_number(SEND_MKNOD, ATTR_MODE, 0100644, ATTR_RDEV, 5);
    refused(&s, ERR_CORRUPT, "no device");
    s = one_number(SEND_CHMOD, ATTR_MODE, 0644, ATTR_MODE, 0600);
    refused(&s, ERR_CORRUPT, "there twice");
    s = begun(1);
    send_put_write(&s, "f", INT64_MAX - 2, "abc");
    refused(&s, ERR_CORRUPT, "beyond any file");
    s = begun(1);
    size_t at = send_begin(&s, SEND_TRUNCATE);
    send_put_text(&s, ATTR_PATH, "f");
    send_put_32(&s, ATTR_SIZE, 4);
    send_end(&s, at);
    refused(&s, ERR_CORRUPT, "wrong size");
    s = begun(1);
    at = send_begin(&s, SEND_MKFILE);
    send_put_text(&s, ATTR_PATH, "f");
    s.data[s.len - 3] = 40; /* the path's length */
    send_end(&s, at);
    refused(&s, ERR_CORRUPT, "longer than the command");
    s = begun(1);
    at = send_begin(&s, SEND_MKFILE);
    send_put_text(&s, ATTR_PATH, "f");
    send_put_32(&s, 32, 1);
    send_end(&s, at);
    refused(&s, ERR_CORRUPT, "unknown");
}

static struct str encoded(uint64_t file_length, uint64_t length, uint64_t offset, uint32_t compression)
{
    struct str s = begun(2);
    size_t at = send_begin(&s, SEND_ENCODED_WRITE);

    send_put_text(&s, ATTR_PATH, "f");
    send_put_64(&s, ATTR_OFFSET, 0);
    send_put_64(&s, ATTR_UNENCODED_FILE_LENGTH, file_length);
    send_put_64(&s, ATTR_UNENCODED_LENGTH, length);
    send_put_64(&s, ATTR_UNENCODED_OFFSET, offset);
    send_put_32(&s, ATTR_COMPRESSION, compression);
    send_put_data(&s, "0123456789", 10);
    send_end(&s, at);
    send_put_end(&s);
    return s;
}

static void test_encoded(void **state)
{
    struct str s = encoded(4096, 4096, 0, BTRFS_ENCODED_IO_COMPRESSION_ZSTD);

    taken(&s, 3);
    s = encoded(4096, 1 << 30, 0, BTRFS_ENCODED_IO_COMPRESSION_ZSTD);
    refused(&s, ERR_CORRUPT, "lengths");
    s = encoded(4096, 4096, 1, BTRFS_ENCODED_IO_COMPRESSION_ZSTD);
    refused(&s, ERR_CORRUPT, "lengths");
    s = encoded(1, 4096, 4096, BTRFS_ENCODED_IO_COMPRESSION_ZSTD);
    refused(&s, ERR_CORRUPT, "lengths");
    s = encoded(UINT64_MAX, 4096, 1, BTRFS_ENCODED_IO_COMPRESSION_ZSTD);
    refused(&s, ERR_CORRUPT, "lengths");
    s = encoded(4096, 4096, 0, 77);
    refused(&s, ERR_UNSUPPORTED, "compression 77");
    s = encoded(10, 10, 0, BTRFS_ENCODED_IO_COMPRESSION_NONE);
    taken(&s, 3);
    s = encoded(11, 11, 0, BTRFS_ENCODED_IO_COMPRESSION_NONE);
    refused(&s, ERR_CORRUPT, "lengths");
}

/* ---- the kernel's own ---- */

static bool read_stream(const char *name, struct str *to)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", corpus, name);
    char buf[4096];
    size_t n;
    FILE *f = fopen(path, "re");

    if (*name == '.' || !f || getc(f) != 's') {
        if (f)
            (void)fclose(f);
        return false;
    }
    while ((n = fread(buf, 1, sizeof(buf), f)))
        str_append_bytes(to, buf, n);
    (void)fclose(f);
    return true;
}

/* A stream with one wrong bit is refused, or has no end; wherever it is. */
static void check_flips(struct str *s)
{
    for (size_t i = 0; i < s->len; i++) {
        bool ended;
        size_t n;

        s->data[i] = (char)(s->data[i] ^ 1 << i % 8);
        CLEANUP_ERR struct err *e = feed(s, &n, &ended);
        if (ended)
            fail_msg("byte %zu can be changed", i);
        s->data[i] = (char)(s->data[i] ^ 1 << i % 8);
    }
}

static void test_of_the_kernel(void **state)
{
    DIR *d = opendir(corpus);
    const struct dirent *de;
    unsigned streams = 0;

    assert_non_null(d);
    while ((de = readdir(d))) {
        CLEANUP_STR struct str s = {0};
        bool ended;
        size_t n;

        if (strncmp(de->d_name, "kernel-", 7) || !read_stream(de->d_name, &s))
            continue;
        struct err *e = feed(&s, &n, &ended);
        if (e)
            fail_msg("%s: %s", de->d_name, e->text);
        assert_true(ended);
        check_flips(&s);
        streams++;
    }
    closedir(d);
    assert_true(streams >= 3);
}

/* ---- notes ---- */

static void test_hash_goes_on(void **state)
{
    enum { SIZE = 3000 };
    uint8_t bytes[SIZE];

    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t cut = 0; cut <= SIZE; cut++) {
        struct stream_hash *a = stream_hash_new(), *b = stream_hash_new();
        struct stream_hash_state saved;
        uint64_t low, high;
        XXH128_hash_t want = XXH3_128bits(bytes, SIZE);

        stream_hash_update(a, bytes, cut / 2);
        stream_hash_update(a, bytes + cut / 2, cut - cut / 2);
        stream_hash_save(a, &saved);
        assert_true(stream_hash_restore(b, &saved, cut));
        stream_hash_update(b, bytes + cut, SIZE - cut);
        stream_hash_digest(b, &low, &high);
        assert_true(low == want.low64 && high == want.high64);
        stream_hash_free(a);
        stream_hash_free(b);
    }
}

static void test_note(void **state)
{
    struct point p = {.snapshot = "t45-final", .identity = ID, .version = 2, .ctransid = 77, .offset = 1000}, again;
    struct stream_hash *h = stream_hash_new();
    char text[POINT_TEXT_MAX];
    uint8_t bytes[1000] = {1, 2, 3};

    stream_hash_update(h, bytes, sizeof(bytes));
    stream_hash_save(h, &p.state);
    stream_hash_digest(h, &p.hash_low, &p.hash_high);
    stream_hash_free(h);
    point_format(&p, text);
    assert_true(point_parse(text, &again));
    assert_memory_equal(&p, &again, sizeof(p));
    (void)snprintf(p.base, sizeof(p.base), "t45-0");
    point_format(&p, text);
    assert_false(point_parse(text, &again)); /* a base without identity */
    p.base_identity = (struct uuid){{9}};
    point_format(&p, text);
    assert_true(point_parse(text, &again));
    assert_string_equal(again.base, "t45-0");
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) { /* cut anywhere, and changed anywhere that the hash can see */
        char was = text[i];

        text[i] = '\0';
        assert_false(point_parse(text, &again));
        text[i] = was;
    }
    char *sums = strchr(text, '\n');
    sums[8] = sums[8] == '0' ? '1' : '0';
    assert_false(point_parse(text, &again));
}

/* ---- compression ---- */

static void test_decompress(void **state)
{
    uint8_t plain[SEND_UNENCODED_MAX], packed[SEND_UNENCODED_MAX + 4096], got[SEND_UNENCODED_MAX];
    uLongf n = sizeof(packed);

    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)((unsigned char)"some text, "[i % 11] + i / 5000);
    memset(packed, 0xff, sizeof(packed)); /* what stands behind is not looked at */
    assert_int_equal(compress2(packed, &n, plain, sizeof(plain), 3), Z_OK);
    assert_null(decompress(BTRFS_ENCODED_IO_COMPRESSION_ZLIB, packed, n + 100, got, sizeof(got)));
    assert_memory_equal(got, plain, sizeof(plain));
    assert_null(decompress(BTRFS_ENCODED_IO_COMPRESSION_ZLIB, packed, n, got, 5000)); /* more than is wanted */
    assert_memory_equal(got, plain, 5000);
    struct err *e = decompress(BTRFS_ENCODED_IO_COMPRESSION_ZLIB, packed, n / 2, got, sizeof(got));
    assert_true(err_is(e, ERR_CORRUPT));
    err_free(e);

    n = ZSTD_compress(packed, sizeof(packed), plain, 100000, 3);
    memset(got, 1, sizeof(got));
    assert_null(decompress(BTRFS_ENCODED_IO_COMPRESSION_ZSTD, packed, n + 100, got, sizeof(got)));
    assert_memory_equal(got, plain, 100000);
    for (size_t i = 100000; i < sizeof(got); i++)
        assert_int_equal(got[i], 0);
    assert_null(decompress(BTRFS_ENCODED_IO_COMPRESSION_ZSTD, packed, n, got, 5000));
    assert_memory_equal(got, plain, 5000);
    e = decompress(BTRFS_ENCODED_IO_COMPRESSION_ZSTD, packed, n / 2, got, sizeof(got));
    assert_true(err_is(e, ERR_CORRUPT));
    err_free(e);
    e = decompress(BTRFS_ENCODED_IO_COMPRESSION_LZO_4K, packed, n, got, sizeof(got));
    assert_true(err_is(e, ERR_UNSUPPORTED));
    err_free(e);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smallest),      cmocka_unit_test(test_values),   cmocka_unit_test(test_largest),
        cmocka_unit_test(test_not_a_stream),  cmocka_unit_test(test_order),    cmocka_unit_test(test_commands),
        cmocka_unit_test(test_paths),         cmocka_unit_test(test_numbers),  cmocka_unit_test(test_encoded),
        cmocka_unit_test(test_of_the_kernel), cmocka_unit_test(test_note),     cmocka_unit_test(test_hash_goes_on),
        cmocka_unit_test(test_decompress),
    };

    corpus = argc > 1 ? argv[1] : ".";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
