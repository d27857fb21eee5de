#include "net/handed.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_FD 3
#define HANDED_MAX 64u

static unsigned long number_of(const char *variable, unsigned long max)
{
    const char *text = getenv(variable);
    char *end = NULL;

    if (!text || *text < '0' || *text > '9')
        return 0;
    unsigned long n = strtoul(text, &end, 10);

    return *end || n > max ? 0 : n;
}

static bool is_listening(int fd, int family)
{
    int domain = -1, listening = 0;
    socklen_t n = sizeof(domain), m = sizeof(listening);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == family &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &m) == 0 && listening;
}

int handed_socket(int family)
{
    static uint64_t taken;
    unsigned long n = number_of("LISTEN_FDS", HANDED_MAX);

    if (number_of("LISTEN_PID", INT32_MAX) != (unsigned long)getpid())
        return -1; /* they were for a parent of ours */
    for (unsigned long i = 0; i < n; i++) {
        int fd = FIRST_FD + (int)i;

        if (taken & UINT64_C(1) << i || !is_listening(fd, family))
            continue;
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
            continue;
        taken |= UINT64_C(1) << i;
        return fd;
    }
    return -1;
}
