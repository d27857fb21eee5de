#include "base/log.h"

#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static struct {
    const char *name;
    enum log_level level;
    int fd;
} logger = {"flocker", LOG_LEVEL_INFO, STDERR_FILENO};

void log_setup(const char *name, enum log_level level)
{
    logger.name = name;
    logger.level = level;
}

int log_open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

    if (fd < 0)
        return -errno;
    log_use_fd(fd);
    return 0;
}

void log_use_fd(int fd)
{
    if (logger.fd != STDERR_FILENO)
        (void)close(logger.fd);
    logger.fd = fd;
}

static void append_escaped(struct str *line, const char *text)
{
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == 0x7f)
            str_appendf(line, "\\x%02x", c);
        else
            str_append_bytes(line, p, 1);
    }
}

void log_write(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};

    if (level > logger.level)
        return;
    int saved = errno;
    struct timespec ts;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    (void)gmtime_r(&ts.tv_sec, &tm);
    char stamp[40];
    (void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);

    va_list ap;
    CLEANUP_FREE char *text = NULL;
    va_start(ap, fmt);
    errno = saved; /* for %m */
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);

    CLEANUP_STR struct str line = {0};
    str_appendf(&line, "%s.%03ldZ %s %s: ", stamp, ts.tv_nsec / 1000000, names[level], logger.name);
    append_escaped(&line, text ? text : fmt);
    str_append(&line, "\n");
    (void)!write(logger.fd, line.data, line.len);
    errno = saved;
}
