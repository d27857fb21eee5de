/* What a store must hold: the test's own copy of it, batch by batch. And small things for tests with many images of disks. */
#pragma once

#include "store_test.h"

#include "base/random.h"

struct record {
    enum store_kind kind;
    char *key;
    char *value;
};

/* All records after a batch, sorted by kind and key. */
struct state {
    uint64_t revision;
    struct record *records;
    size_t n;
};

#define MAX_STATES 400

/* Every state that was committed or tried, in order of revisions; 0: the empty store. */
struct past {
    struct state states[MAX_STATES];
    size_t n;
    bool has_id;
    struct uuid id;
};

void past_begin(struct past *p);
void past_done(struct past *p);
void past_forget(struct past *p, size_t n); /* all but the first `n` states */
/* Puts a copy of the last state of `from` behind those of `p`. */
void past_copy_last(struct past *p, const struct past *from);
const struct state *past_find(const struct past *p, uint64_t revision); /* NULL: there was none */

/* Commits some random puts, updates and deletes on top of `s`'s state (which must be in `past`) and notes what must be
 * there then. Now and then a record is large, and now and then the store is tidied afterwards. */
struct err *commit_random(struct store *s, struct past *p, const struct random *r,
                          bool *ret_uncertain);

/* Whether the store holds exactly `want`; otherwise *ret_why, which the caller frees. */
bool state_is(struct store *s, const struct state *want, char **ret_why);

/* The files of a store. */
#define DISK_FILES 8
struct disk {
    struct {
        char name[32];
        unsigned char *bytes;
        size_t n;
    } files[DISK_FILES];
    size_t n;
};

void disk_read(struct disk *d, const char *dir);
void disk_write(const struct disk *d, const char *dir); /* makes `dir` hold just that */
void disk_done(struct disk *d);
void folder_empty(const char *dir);

/* A folder in memory when there is one: thousands of images are written to it. */
char *make_fast_temp(void);

/* `few`, or `many` when FLOCKER_TEST_FULL is set. */
size_t few_or_many(size_t few, size_t many);

/* Makes SQLite write its log back every few pages and keep little in memory, so that short tests see all it does. */
void make_sqlite_busy(void);
