#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engines/neighbour.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static int run(const char *command)
{
    pid_t pid = fork();

    if (pid == 0) {
        (void)execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    int status = -1;
    assert_true(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A network namespace of our own, with an interface on which nobody answers. */
static int set_up(void **state)
{
    if (unshare(CLONE_NEWNET) != 0)
        return -1;
    return run("ip link add br0 type bridge && ip addr add 192.0.2.1/24 dev br0 && ip link set br0 up && "
               "ip link add v0 type veth peer name v1 && ip link set v0 master br0 up && ip link set v1 up");
}

static void knock(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_int_equal(inet_pton(AF_INET, address, &to.sin_addr), 1);
    assert_int_equal(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
}

static void test_forgets_only_the_unanswered(void **state)
{
    assert_int_equal(run("ip neigh add 192.0.2.7 dev br0 lladdr 02:00:00:00:00:07 nud reachable"), 0);
    knock("192.0.2.9");
    assert_int_equal(run("ip neigh show 192.0.2.9 | grep -Eq 'INCOMPLETE|FAILED'"), 0);

    assert_null(neighbour_forget_unanswered_sync("192.0.2.7"));
    assert_null(neighbour_forget_unanswered_sync("192.0.2.9"));
    assert_null(neighbour_forget_unanswered_sync("192.0.2.10"));
    assert_null(neighbour_forget_unanswered_sync("2001:db8::1"));
    assert_int_equal(run("ip neigh show 192.0.2.7 | grep -q REACHABLE"), 0);
    assert_int_equal(run("ip neigh show 192.0.2.9 | grep -Eq 'INCOMPLETE|FAILED'"), 1);
}

static void test_refuses_what_is_no_address(void **state)
{
    CLEANUP_ERR struct err *e = neighbour_forget_unanswered_sync("db");

    assert_true(err_is(e, ERR_INVALID));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forgets_only_the_unanswered),
        cmocka_unit_test(test_refuses_what_is_no_address),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
