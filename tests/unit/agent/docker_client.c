#include "docker_client.h"

#include "base/str.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RETRIES 4
#define RETRY_MS 10

static int open_socket(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
        return -1;
    return steal_fd(&fd);
}

static long now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

char *client_raw(const char *path, const char *head, const char *body, size_t n, int timeout_ms)
{
    CLEANUP_CLOSE int fd = open_socket(path);
    CLEANUP_STR struct str answer = {0};
    long end = now_ms() + timeout_ms;
    char piece[65536];

    if (fd < 0 || send(fd, head, strlen(head), MSG_NOSIGNAL) < 0 || (n && send(fd, body, n, MSG_NOSIGNAL) < 0))
        return NULL;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        long left = end - now_ms();

        if (left <= 0 || poll(&p, 1, (int)left) <= 0)
            return NULL;
        ssize_t got = read(fd, piece, sizeof(piece));
        if (got <= 0)
            return answer.len ? str_steal(&answer) : NULL;
        str_append_bytes(&answer, piece, (size_t)got);
    }
}

char *client_call(const char *socket, const char *call, const char *body, int timeout_ms, int *ret_status)
{
    CLEANUP_FREE char *head = xasprintf("POST %s HTTP/1.1\r\nHost: plugin.moby.localhost\r\nUser-Agent: Go-http-client/1.1\r\n"
                                        "Content-Length: %zu\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n"
                                        "Accept-Encoding: gzip\r\nConnection: close\r\n\r\n",
                                        call, strlen(body));
    CLEANUP_FREE char *answer = client_raw(socket, head, body, strlen(body), timeout_ms);
    const char *blank = answer ? strstr(answer, "\r\n\r\n") : NULL;

    if (!blank || sscanf(answer, "HTTP/1.1 %d", ret_status ? ret_status : &(int){0}) != 1)
        return NULL;
    return xstrdup(blank + 4);
}

char *client_docker(const char *socket, const char *call, const char *body, int timeout_ms)
{
    char *answer = client_call(socket, call, body, timeout_ms, NULL);

    for (int i = 0, wait_ms = RETRY_MS; i < RETRIES && !answer; i++, wait_ms *= 2) {
        nanosleep(&(struct timespec){.tv_nsec = wait_ms * 1000000L}, NULL);
        answer = client_call(socket, call, "", timeout_ms, NULL);
    }
    return answer;
}
