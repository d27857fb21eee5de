/* Stands between the store (and SQLite) and the system: records what is written to one folder, in order, so that a test can
 * make the disks that a power cut may leave behind; and fails calls. It takes the places of open, pwrite, fsync and so on in
 * the whole test program. Nothing is ever flushed to a real disk. Not thread-safe: one store, one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHIM_NAMES 8    /* files in the folder */
#define SHIM_INODES 200 /* files ever made there */
#define SHIM_SECTOR 512

enum shim_kind {
    SHIM_WRITE,    /* inode, offset, bytes, size */
    SHIM_TRUNCATE, /* inode, size */
    SHIM_SYNC,     /* inode */
    SHIM_LINK,     /* name, inode */
    SHIM_RENAME,   /* from, name, inode */
    SHIM_UNLINK,   /* name */
    SHIM_SYNC_DIR,
    SHIM_NOTE, /* number: of the test's own */
};

struct shim_op {
    enum shim_kind kind;
    int inode;
    uint64_t offset;
    size_t size;
    unsigned char *bytes;
    char name[32], from[32];
    uint64_t number;
};

struct shim_log {
    struct shim_op *ops;
    size_t n, cap;
};

/* Records what happens in `dir` from now on. The files that are there have the inodes 0, 1, ... in the order of `names`. */
void shim_watch(const char *dir, const char *const *names, size_t n);
void shim_note(uint64_t number);
/* Stops; the log is the caller's. */
struct shim_log shim_end(void);
void shim_log_done(struct shim_log *l);

enum shim_call {
    SHIM_ON_WRITE = 1,
    SHIM_ON_READ = 2,
    SHIM_ON_SYNC = 4,
    SHIM_ON_TRUNCATE = 8,
    SHIM_ON_NAMES = 16, /* open for writing, rename, unlink */
};

struct shim_fault {
    const char *dir;   /* where; NULL: no faults */
    unsigned calls;    /* which calls, enum shim_call */
    uint64_t at;       /* the first that fails: 1, 2, ... */
    uint64_t count;    /* how many fail */
    int errnum;        /* how */
    bool half;         /* a failing write first writes half */
    uint64_t happened; /* calls so far */
};

extern struct shim_fault shim_fault;

/* The kernel's random numbers, from now on. */
void shim_seed(uint64_t seed);
