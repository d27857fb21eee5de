/* Log lines on standard error: `2026-01-31T12:00:00.123Z info agent: text`. One line per event, written
 * with one write(2); control characters in the text are escaped. Never log a secret. Thread-safe. */
#pragma once

#include "base/mem.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `name` (static storage) is printed on each line; lines above `level` are dropped. */
void log_setup(const char *name, enum log_level level);
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Puts the lines into the file instead, appending; 0 or -errno. May be called again to re-open. */
int log_open_file(const char *path);
/* Writes the lines to `fd` (a socket of the journal, ...) from now on; takes the descriptor over. */
void log_use_fd(int fd);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
