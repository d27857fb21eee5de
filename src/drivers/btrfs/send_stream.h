/* The send stream of btrfs, versions 1 and 2: bytes in, commands out. Pure: no I/O, no memory of its own beyond its struct.
 *
 *   "btrfs-stream\0" version(4)  then commands:  length(4) command(2) crc32c(4) attributes
 *   an attribute:  type(2) length(2) value; in version 2 DATA has no length, is the last, and takes the rest
 *
 * The bytes come from another host and are not trusted. What is given out is checked as far as bytes can be: checksum, sizes,
 * numbers that do not overflow, paths that are relative and have no "." or ".." in them, exactly one subvolume, first. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#include <stdbool.h>
#include <time.h>

#define SEND_HEADER_SIZE 17u
#define SEND_COMMAND_HEADER_SIZE 10u
#define SEND_PATH_MAX 4095u
#define SEND_NAME_MAX 255u
#define SEND_XATTR_MAX 65536u
#define SEND_UNENCODED_MAX (128u * 1024) /* what one compressed extent may become */
/* The kernel's largest buffer for one command: 64 KiB, and from version 2 on 144 KiB rounded up to whole pages. */
#define SEND_COMMAND_MAX_V1 (64u * 1024)
#define SEND_COMMAND_MAX (192u * 1024)
#define SEND_VERSION_MAX 2u

/* Their numbers in the stream. */
enum send_type {
    SEND_HEADER = 0, /* given out for the stream's own header */
    SEND_SUBVOL = 1,
    SEND_SNAPSHOT = 2,
    SEND_MKFILE = 3,
    SEND_MKDIR = 4,
    SEND_MKNOD = 5,
    SEND_MKFIFO = 6,
    SEND_MKSOCK = 7,
    SEND_SYMLINK = 8,
    SEND_RENAME = 9,
    SEND_LINK = 10,
    SEND_UNLINK = 11,
    SEND_RMDIR = 12,
    SEND_SET_XATTR = 13,
    SEND_REMOVE_XATTR = 14,
    SEND_WRITE = 15,
    SEND_CLONE = 16,
    SEND_TRUNCATE = 17,
    SEND_CHMOD = 18,
    SEND_CHOWN = 19,
    SEND_UTIMES = 20,
    SEND_END = 21,
    SEND_UPDATE_EXTENT = 22, /* never given out: it stands for data that were left out */
    SEND_FALLOCATE = 23,
    SEND_FILEATTR = 24,
    SEND_ENCODED_WRITE = 25,
    SEND_TYPE_MAX,
};

/* Only what belongs to the type has a meaning; the rest is 0. Pointers are into the parser or into the bytes it was given:
 * valid until the next call. */
struct send_command {
    enum send_type type;
    const char *path;       /* all but END; of SUBVOL and SNAPSHOT not checked. "" = the subvolume itself */
    const char *path_to;    /* RENAME */
    const char *path_link;  /* LINK: what is there already; SYMLINK: any text */
    const char *clone_path; /* CLONE */
    const char *xattr_name;
    const uint8_t *data; /* WRITE, ENCODED_WRITE, SET_XATTR */
    size_t n_data;
    struct uuid uuid; /* SUBVOL, SNAPSHOT */
    uint64_t ctransid;
    struct uuid clone_uuid; /* SNAPSHOT, CLONE */
    uint64_t clone_ctransid;
    uint64_t offset; /* of every kind of write; `offset` + length is at most INT64_MAX, here and below */
    uint64_t size;   /* TRUNCATE, FALLOCATE */
    uint64_t clone_offset, clone_length;
    uint32_t mode; /* MKNOD with the type, CHMOD without */
    uint32_t uid, gid, rdev;
    struct timespec atime, mtime;
    uint32_t fallocate_mode;
    uint64_t file_attributes;
    /* ENCODED_WRITE, all at most SEND_UNENCODED_MAX */
    uint64_t unencoded_file_length, unencoded_length, unencoded_offset;
    uint32_t compression; /* BTRFS_ENCODED_IO_COMPRESSION_*, none but those of <linux/btrfs.h> */
};

enum send_phase {
    SEND_AT_HEADER,
    SEND_AT_SUBVOLUME,
    SEND_AT_BODY,
    SEND_AT_END, /* nothing may follow */
};

struct send_stream {
    enum send_phase phase;
    unsigned version;
    uint64_t offset; /* of the next command in the stream */
    char paths[2][SEND_PATH_MAX + 1];
    char xattr_name[SEND_NAME_MAX + 1];
};

void send_stream_init(struct send_stream *s);
/* Goes on behind a command of the body. */
void send_stream_resume(struct send_stream *s, unsigned version, uint64_t offset);
/* Takes the command that begins here. *ret_used 0: it is not whole yet, there must be at least one byte more; a command never
 * needs more than SEND_COMMAND_MAX bytes. ERR_CORRUPT: no such stream; ERR_UNSUPPORTED: it may be one of a later version. */
struct err *send_stream_next(struct send_stream *s, const uint8_t *bytes, size_t n, size_t *ret_used,
                             struct send_command *ret_command) MUST_USE;
/* The name of a command, for people; "header" for 0. */
const char *send_type_name(enum send_type type);
