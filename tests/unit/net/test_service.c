#include "base/now.h"
#include "net/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* Plays the service manager: what it is told arrives here. */
static int manager = -1;
static struct loop *loop;
static struct timer end;

static void stop(void *cookie)
{
    loop_stop(loop);
}

static int setup(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "flocker-test-service-%ld", (long)getpid());
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a.sun_path + 1));
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(manager, (struct sockaddr *)&a, size), 0);
    a.sun_path[0] = '@';
    setenv("NOTIFY_SOCKET", a.sun_path, 1);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    assert_null(loop_new(&loop));
    timer_init(&end, loop, stop, NULL);
    return 0;
}

static int teardown(void **state)
{
    unsetenv("NOTIFY_SOCKET");
    loop = loop_free(loop);
    close(manager);
    return 0;
}

/* The next message; "" when there is none. */
static const char *heard(void)
{
    static char text[256];
    ssize_t n = recv(manager, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void run_for(uint64_t us)
{
    timer_set(&end, now_os().mono_us + us);
    assert_null(loop_run(loop));
}

static void test_ready_and_stopping(void **state)
{
    struct service s = {0};

    service_ready(&s, loop);
    run_for(20000);
    assert_string_equal(heard(), "READY=1");
    assert_string_equal(heard(), "");
    service_stopping(&s);
    assert_string_equal(heard(), "STOPPING=1");
}

static void test_signs_of_life(void **state)
{
    struct service s = {0};
    int n = 0;

    setenv("WATCHDOG_USEC", "100000", 1);
    service_ready(&s, loop);
    run_for(220000); /* nobody reads meanwhile: a socket holds ten messages */
    assert_string_equal(heard(), "READY=1");
    while (strcmp(heard(), "WATCHDOG=1") == 0)
        n++;
    assert_in_range(n, 2, 5); /* at once, and every 50 ms */
    service_stopping(&s);
    assert_string_equal(heard(), "STOPPING=1");
    run_for(120000);
    assert_string_equal(heard(), "");
}

/* Meant for the process that started this one. */
static void test_watchdog_of_another_process(void **state)
{
    struct service s = {0};

    setenv("WATCHDOG_USEC", "40000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    service_ready(&s, loop);
    run_for(60000);
    assert_string_equal(heard(), "READY=1");
    assert_string_equal(heard(), "");
}

static void test_nobody_asked(void **state)
{
    struct service s = {0};

    service_stopping(&s);
    assert_string_equal(heard(), "STOPPING=1");
    unsetenv("NOTIFY_SOCKET");
    service_ready(&s, loop);
    service_stopping(&s);
    assert_string_equal(heard(), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ready_and_stopping, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signs_of_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watchdog_of_another_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_asked, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
