/* The program inside the managed Docker plugin: it hands every connection of Docker to the agent's socket on the host, and shows the
 * host's /flocker where Docker looks for what a plugin has mounted. All the work is the agent's, a service of the host: upgrading
 * Flocker never needs `docker plugin upgrade`. Linked statically, alone in the plugin's root.
 *
 * One process a connection; there are few, and none of them keeps anything. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* As config.json mounts them. */
#define OURS "/run/docker/plugins/flocker.sock"
#define HOSTS "/host/plugin/flocker.sock"
#define HOST_VOLUMES "/host/flocker"
#define VOLUMES "/flocker" /* the propagatedMount: what is mounted here appears on the host, below the plugin's directory */

#define CONNECTIONS 256 /* more wait in the socket */
#define PIECE 65536

static int fail(const char *what)
{
    fprintf(stderr, "flocker plugin: %s: %s\n", what, strerror(errno));
    return 1;
}

static int open_socket(const char *path, struct sockaddr_un *ret_address)
{
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_address->sun_path, path, strlen(path) + 1);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static bool write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, data, n);
        if (done < 0 && errno != EINTR)
            return false;
        if (done > 0) {
            data += done;
            n -= (size_t)done;
        }
    }
    return true;
}

/* One piece; false: nothing more comes from there, or nothing more is taken here. */
static bool copy(int from, int to)
{
    static char piece[PIECE];
    ssize_t n = read(from, piece, sizeof(piece));

    if (n < 0)
        return errno == EINTR;
    return n > 0 && write_all(to, piece, (size_t)n);
}

/* Until both sides have ended. A side that ends is told to the other one, whose answer is still brought. */
static int shuttle(int docker, int agent)
{
    struct pollfd p[2] = {{docker, POLLIN, 0}, {agent, POLLIN, 0}};
    const int to[2] = {agent, docker};

    while (p[0].fd >= 0 || p[1].fd >= 0) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return 1;
        for (int i = 0; i < 2; i++) {
            if (p[i].fd < 0 || !p[i].revents || copy(p[i].fd, to[i]))
                continue;
            (void)shutdown(to[i], SHUT_WR);
            p[i].fd = -1;
        }
    }
    return 0;
}

static int serve(int docker)
{
    struct sockaddr_un address;
    int agent = open_socket(HOSTS, &address);

    (void)signal(SIGPIPE, SIG_IGN);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Docker tries again when a connection ends without an answer. */
    if (agent < 0 || connect(agent, (struct sockaddr *)&address, sizeof(address)) < 0)
        return fail("cannot reach the agent's socket on the host, flocker-docker-plugin.socket");
    return shuttle(docker, agent);
}

static int listen_for_docker(void)
{
    struct sockaddr_un address;
    int fd = open_socket(OURS, &address);

    (void)unlink(OURS);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, CONNECTIONS) == 0)
        return fd;
    return -1;
}

static void reap(unsigned *children, bool wait)
{
    while (*children > 0 && waitpid(-1, NULL, wait ? 0 : WNOHANG) > 0) {
        (*children)--;
        wait = false;
    }
}

int main(void)
{
    unsigned children = 0;

    /* First the socket: Docker gives a plugin little time for it. A slave of the host's, it sees what the agent mounts later, and
     * nothing done to it reaches the host. */
    int listening = listen_for_docker();
    if (listening < 0)
        return fail("cannot listen on " OURS);
    if (mount(HOST_VOLUMES, VOLUMES, NULL, MS_BIND | MS_REC, NULL) < 0)
        return fail("cannot show the host's /flocker");
    for (;;) {
        int docker = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        if (docker < 0) {
            (void)usleep(10000); /* too many files, or the connection is gone already */
            continue;
        }
        pid_t pid = fork();
        if (pid == 0)
            _exit(serve(docker));
        (void)close(docker);
        children += pid > 0;
        reap(&children, children >= CONNECTIONS);
    }
}
