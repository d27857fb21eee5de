#include "engines/docker_process.h"

#include "base/mem.h"
#include "base/now.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Every cgroup manager puts the container's id into the path of its cgroup. */
static bool is_of_container(pid_t pid, const char *id)
{
    char path[64], text[16384];
    size_t used = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    while (used < sizeof(text) - 1) {
        ssize_t n = read(fd, text + used, sizeof(text) - 1 - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    text[used] = '\0';
    return strstr(text, id) != NULL;
}

int docker_process_open(pid_t pid, const char *id)
{
    if (pid <= 0)
        return -1;
    CLEANUP_CLOSE int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    /* Looked at after the opening, and alive after the look: the number was not given to another
     * one between. */
    if (fd < 0 || !is_of_container(pid, id) || docker_process_wait(fd, 0))
        return -1;
    return steal_fd(&fd);
}

bool docker_process_wait(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t end = now_os().mono_us + (uint64_t)timeout_ms * 1000;

    if (fd < 0)
        return true;
    for (;;) {
        int n = poll(&p, 1, timeout_ms);

        if (n > 0)
            return true;
        if (n == 0 || errno != EINTR)
            return false;
        uint64_t now = now_os().mono_us;
        timeout_ms = now < end ? (int)((end - now) / 1000) : 0;
    }
}
