/* Runs another program and waits for it. Never a shell: the arguments go to the program as they
 * are.
 *
 * The program gets its own process group, default signal actions, nothing but the three standard
 * descriptors, and LC_ALL=C so that its messages can be read back. Everything here blocks (never on
 * the loop thread) and is thread-safe; no SIGCHLD handler is needed or installed, and only the
 * started child is waited for. */
#pragma once

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXEC_OUTPUT_MAX 65536u /* default cap of each captured stream */

struct exec_request {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    /* 0 = none (/dev/null); otherwise the descriptor becomes the program's and stays open here. A
     * locked descriptor (flock) given as standard input keeps its lock until the program has ended,
     * even when this process is killed. */
    int stdin_fd;
    int stdout_fd;       /* 0 = captured */
    uint64_t timeout_us; /* 0 = no deadline; then the group is killed: ERR_TIMEOUT */
    const atomic_bool
        *cancel; /* may be NULL; looked at every 50 ms; then the group is killed: ERR_CANCELLED */
    size_t output_max; /* 0 = EXEC_OUTPUT_MAX; what is above is read and dropped */
    bool any_exit;     /* an exit status other than 0 is no error but in the result */
};

struct exec_result {
    char *out; /* captured standard output, NUL-terminated; never NULL after success */
    size_t out_len;
    char *err_text; /* captured standard error, control characters replaced, never NULL after
                       success */
    int status;     /* exit status */
    bool truncated; /* one of the two was longer than the cap */
};

/* Without `any_exit` a status other than 0 is ERR_IO with the program's own words in the text;
 * death by a signal always is. ERR_UNAVAILABLE: the program is not installed. `ret_result` may be
 * NULL; else free it with exec_result_done(). */
struct err *exec_run(const struct exec_request *request, struct exec_result *ret_result) MUST_USE;
void exec_result_done(struct exec_result *r);
#define CLEANUP_EXEC CLEANUP(exec_result_done)
