/* Writes send streams by hand: for streams no kernel would make, and for telling where one that a kernel made can be cut. */
#pragma once

#include "base/crc32c.h"
#include "base/str.h"
#include "drivers/btrfs/send_stream.h"

#include <endian.h>

/* Attributes, by their numbers in the stream. */
enum {
    ATTR_UUID = 1,
    ATTR_CTRANSID = 2,
    ATTR_SIZE = 4,
    ATTR_MODE = 5,
    ATTR_UID = 6,
    ATTR_GID = 7,
    ATTR_RDEV = 8,
    ATTR_MTIME = 10,
    ATTR_ATIME = 11,
    ATTR_XATTR_NAME = 13,
    ATTR_XATTR_DATA = 14,
    ATTR_PATH = 15,
    ATTR_PATH_TO = 16,
    ATTR_PATH_LINK = 17,
    ATTR_OFFSET = 18,
    ATTR_DATA = 19,
    ATTR_CLONE_UUID = 20,
    ATTR_CLONE_CTRANSID = 21,
    ATTR_CLONE_PATH = 22,
    ATTR_CLONE_OFFSET = 23,
    ATTR_CLONE_LENGTH = 24,
    ATTR_UNENCODED_FILE_LENGTH = 27,
    ATTR_UNENCODED_LENGTH = 28,
    ATTR_UNENCODED_OFFSET = 29,
    ATTR_COMPRESSION = 30,
};

static inline void send_put_header(struct str *s, uint32_t version)
{
    uint32_t v = htole32(version);

    str_append_bytes(s, "btrfs-stream", 13);
    str_append_bytes(s, &v, 4);
}

/* Returns where it begins, for send_end(). */
static inline size_t send_begin(struct str *s, unsigned type)
{
    uint16_t t = htole16((uint16_t)type);

    str_append_bytes(s, "\0\0\0\0", 4);
    str_append_bytes(s, &t, 2);
    str_append_bytes(s, "\0\0\0\0", 4);
    return s->len - SEND_COMMAND_HEADER_SIZE;
}

/* Puts the checksum of the command at `at`, whose length is right, into it. */
static inline void send_seal(char *at, size_t n)
{
    uint32_t crc;

    memset(at + 6, 0, 4);
    crc = htole32(crc32c(0, at, n));
    memcpy(at + 6, &crc, 4);
}

static inline void send_end(struct str *s, size_t begin)
{
    uint32_t n = htole32((uint32_t)(s->len - begin - SEND_COMMAND_HEADER_SIZE));

    memcpy(s->data + begin, &n, 4);
    send_seal(s->data + begin, s->len - begin);
}

static inline void send_put(struct str *s, unsigned attribute, const void *bytes, size_t n)
{
    uint16_t head[2] = {htole16((uint16_t)attribute), htole16((uint16_t)n)};

    str_append_bytes(s, head, 4);
    str_append_bytes(s, bytes, n);
}

/* As in version 2: without a length, up to the end of the command. */
static inline void send_put_data(struct str *s, const void *bytes, size_t n)
{
    uint16_t head = htole16(ATTR_DATA);

    str_append_bytes(s, &head, 2);
    str_append_bytes(s, bytes, n);
}

static inline void send_put_text(struct str *s, unsigned attribute, const char *text)
{
    send_put(s, attribute, text, strlen(text));
}

static inline void send_put_64(struct str *s, unsigned attribute, uint64_t v)
{
    v = htole64(v);
    send_put(s, attribute, &v, 8);
}

static inline void send_put_32(struct str *s, unsigned attribute, uint32_t v)
{
    v = htole32(v);
    send_put(s, attribute, &v, 4);
}

static inline void send_put_time(struct str *s, unsigned attribute, uint64_t seconds)
{
    uint64_t v[2] = {htole64(seconds), 0};

    send_put(s, attribute, v, 12);
}

static inline void send_put_subvol(struct str *s, const struct uuid *id)
{
    size_t at = send_begin(s, SEND_SUBVOL);

    send_put_text(s, ATTR_PATH, "any/name");
    send_put(s, ATTR_UUID, id->b, 16);
    send_put_64(s, ATTR_CTRANSID, 7);
    send_end(s, at);
}

static inline void send_put_snapshot(struct str *s, const struct uuid *id, const struct uuid *base)
{
    size_t at = send_begin(s, SEND_SNAPSHOT);

    send_put_text(s, ATTR_PATH, "name");
    send_put(s, ATTR_UUID, id->b, 16);
    send_put_64(s, ATTR_CTRANSID, 9);
    send_put(s, ATTR_CLONE_UUID, base->b, 16);
    send_put_64(s, ATTR_CLONE_CTRANSID, 7);
    send_end(s, at);
}

/* A command that has a path, and maybe one text more. */
static inline void send_put_path(struct str *s, enum send_type type, const char *path, unsigned more, const char *text)
{
    size_t at = send_begin(s, type);

    send_put_text(s, ATTR_PATH, path);
    if (more)
        send_put_text(s, more, text);
    send_end(s, at);
}

/* Version 1. */
static inline void send_put_write(struct str *s, const char *path, uint64_t offset, const char *text)
{
    size_t at = send_begin(s, SEND_WRITE);

    send_put_text(s, ATTR_PATH, path);
    send_put_64(s, ATTR_OFFSET, offset);
    send_put_text(s, ATTR_DATA, text);
    send_end(s, at);
}

static inline void send_put_end(struct str *s)
{
    send_end(s, send_begin(s, SEND_END));
}
