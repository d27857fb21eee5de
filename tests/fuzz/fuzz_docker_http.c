/* What answers at the container engine's socket, from the bytes up; libcurl reads them. Each connection gets the bytes
 * up to the next "%%". The first byte chooses: n a call of which the version must be asked for first, c a call whose
 * version is known, l one that takes lines. */
#include "fuzz.h"

#include "engines/docker_http.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATH "/run/no-such-engine.sock"
#define PEERS_MAX 8

static const char *answers; /* what is left of them */
static size_t answers_left;
static int peers[PEERS_MAX];
static size_t n_peers;

int connect(int fd, const struct sockaddr *to, socklen_t n);

/* In place of the C library's: at the other end sits somebody who has said everything already. */
int connect(int fd, const struct sockaddr *to, socklen_t n)
{
    int pair[2], flags = fcntl(fd, F_GETFL);
    const char *end = memmem(answers, answers_left, "%%", 2);
    size_t size = end ? (size_t)(end - answers) : answers_left;

    RULE(to->sa_family == AF_UNIX && streq(((const struct sockaddr_un *)to)->sun_path, PATH));
    if (n_peers == PEERS_MAX || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        errno = ECONNREFUSED;
        return -1;
    }
    RULE(dup3(pair[0], fd, O_CLOEXEC) == fd && fcntl(fd, F_SETFL, flags) == 0);
    close(pair[0]);
    (void)send(pair[1], answers, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)shutdown(pair[1], SHUT_WR);
    peers[n_peers++] = pair[1];
    answers += size + (end ? 2 : 0);
    answers_left -= size + (end ? 2 : 0);
    return 0;
}

static struct err *take_line(void *cookie, const char *line, size_t n)
{
    size_t *lines = cookie;

    RULE(n && n <= DOCKER_LINE_MAX && !memchr(line, '\n', n));
    return ++*lines == 20 ? err_new(ERR_CANCELLED, "enough lines") : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct docker_http h;
    struct docker_response response = {0};
    size_t lines = 0;
    struct docker_request request = {.method = "GET", .path = "/containers/json", .timeout_s = 1};

    if (!size || !strchr("ncl", data[0]) || !data[0])
        return -1;
    answers = (const char *)data + 1;
    answers_left = size - 1;
    docker_http_init(&h, PATH);
    if (data[0] != 'n')
        h.api_minor = 41;
    if (data[0] == 'l') {
        request.line = take_line;
        request.cookie = &lines;
        request.method = "POST";
    }
    CLEANUP_ERR struct err *e = docker_http_call(&h, &request, &response);
    RULE(e ? *e->text && !response.body.data : response.status >= 0);
    RULE(lines <= 20);
    docker_response_done(&response);
    docker_http_done(&h);
    while (n_peers)
        close(peers[--n_peers]);
    return 0;
}
