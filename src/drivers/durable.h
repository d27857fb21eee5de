/* Small durable things in a folder: files replaced whole, folders, removal. All block; all are
 * thread-safe. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>

/* Opens the folder `name` in `dirfd` (may be AT_FDCWD and a path); made with `mode` first when
 * `create`. A missing one is *ret_fd = -1 without an error when not `create`. Never follows a
 * symbolic link in the last part. */
struct err *dir_open(int dirfd, const char *name, bool create, mode_t mode, int *ret_fd) MUST_USE;
/* mkdir -p of an absolute path, missing parts with `mode`. */
struct err *dir_make_path(const char *path, mode_t mode) MUST_USE;
/* Bytes of the file system that the open folder is in, and how many of them are free for use. */
struct err *folder_space(int fd, uint64_t *ret_total, uint64_t *ret_free) MUST_USE;
/* fsync of a folder: what was made, renamed or removed in it stays so. */
struct err *dir_sync(int fd) MUST_USE;
/* Removes an empty folder; missing or not empty is fine. */
struct err *dir_remove_empty(int dirfd, const char *name) MUST_USE;

/* Writes the file whole and durably: a temporary one in the same folder (`.NAME.new`), fsync,
 * rename, fsync of the folder. A reader sees the old or the new content, never a part, also after a
 * power cut. */
struct err *file_replace(int dirfd, const char *name, const char *bytes, size_t n) MUST_USE;
/* The content, NUL-terminated; *ret_text is NULL when there is no such file. More than `max` bytes:
 * ERR_CORRUPT. */
struct err *file_read(int dirfd, const char *name, size_t max, char **ret_text) MUST_USE;
/* Removes the file and its temporary, durably; missing is fine. */
struct err *file_remove(int dirfd, const char *name) MUST_USE;

/* A second, independent stream of the folder `fd` (which stays open); NULL with errno set. */
DIR *dir_stream(int fd);
void dir_stream_close(DIR **d);
#define CLEANUP_DIR CLEANUP(dir_stream_close)
/* The next name in it that is not "." or ".."; NULL at the end. */
const char *dir_next(DIR *d);
