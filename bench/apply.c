/* Receives a btrfs stream from standard input as the agent does, into the pool that is (or will be) the folder POOL, and removes it again.
 * Prints how long the receive took. */
#include "base/now.h"
#include "base/str.h"
#include "drivers/btrfs/send_stream.h"
#include "drivers/storage.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* The stream's own name of itself: its first command. Standard input is a file. */
static struct err *read_identity(struct uuid *ret_id)
{
    uint8_t bytes[8192];
    struct send_stream *s = xcalloc(1, sizeof(*s));
    struct send_command c = {0};
    ssize_t n = pread(STDIN_FILENO, bytes, sizeof(bytes), 0);
    size_t used = 0;
    struct err *e = n < 0 ? err_new(ERR_INVALID, "standard input must be a file") : NULL;

    send_stream_init(s);
    for (size_t at = 0; !e && c.type == SEND_HEADER; at += used) {
        e = send_stream_next(s, bytes + at, (size_t)n - at, &used, &c);
        if (!e && !used)
            e = err_new(ERR_INVALID, "standard input is no whole stream");
    }
    *ret_id = c.uuid;
    free(s);
    return e;
}

static struct err *run(const char *pool, const char *state, const char *mounts)
{
    struct random r = random_os();
    struct uuid dataset = uuid_random_v4(&r), identity;
    json_t *options = json_pack("{s:s, s:s}", "backend", "btrfs", "pool", pool);
    struct storage_config config = {.dataset = options, .mount_root = mounts, .state_dir = state};
    struct storage *s = NULL;

    TRY(read_identity(&identity));
    struct err *e = storage_open(&config, &s);
    uint64_t t0 = now_os().mono_us, t1 = t0;

    if (!e)
        e = storage_receive(s, &dataset, &(struct stream_spec){.snapshot = "s", .identity = UUID_STR(&identity)},
                            STDIN_FILENO);
    t1 = now_os().mono_us;
    if (!e)
        e = storage_destroy(s, &dataset);
    storage_close(s);
    json_decref(options);
    if (!e)
        (void)printf("%.3f\n", (double)(t1 - t0) / USEC_PER_SEC);
    return e;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fprintf(stderr, "usage: apply POOL STATE_DIR MOUNT_ROOT <STREAM\n");
        return 2;
    }
    CLEANUP_ERR struct err *e = run(argv[1], argv[2], argv[3]);

    if (e)
        (void)fprintf(stderr, "apply: %s\n", e->text);
    return e ? 1 : 0;
}
