/* Writing a key and its certificate as two new files: mode 0600, complete or not there at all,
 * never over an existing file. */
#pragma once

#include "base/err.h"

struct pair_files {
    char *key; /* paths; owned */
    char *certificate;
};

/* "<directory>/<name>.key" and "<directory>/<name>.crt". */
void pair_files_name(struct pair_files *f, const char *directory, const char *name);
void pair_files_done(struct pair_files *f);

/* An error when one of them exists already: a check before the long key generation. */
struct err *pair_files_check(const struct pair_files *f) MUST_USE;
/* Writes both, flushed to disk. After an error neither exists (unless it existed before). */
struct err *pair_files_write(const struct pair_files *f, const char *key,
                             const char *certificate) MUST_USE;

/* Puts the new certificate in the place of `certificate`, and, unless NULL, the new key in that of the file's `key`; mode
 * 0600. Each file is the old one or the new one, whole, at any moment; the key changes first. */
struct err *pair_files_replace(const struct pair_files *f, const char *key, const char *certificate) MUST_USE;

#define TEXT_FILE_MAX (1u << 20)
/* Reads a whole text file of at most TEXT_FILE_MAX bytes without NUL. The error is `sentence`, the
 * reason and the path. */
struct err *text_file_read(const char *sentence, const char *path, char **ret_text) MUST_USE;
