/* A Docker daemon of the test's own: the program runs itself again in new pid, mount, network and
 * ipc namespaces, so that nothing it starts outlives it or can be reached from outside. */
#pragma once

#include "engines/container_engine.h"
#include "engines/docker_http.h"

#include <stdbool.h>
#include <sys/types.h>

#define TEST_IMAGE "flocker-test:1" /* a busybox */

struct docker_fixture {
    char dir[64]; /* a tmpfs that only the test sees */
    char socket[96];
    pid_t dockerd;
};

extern struct docker_fixture fixture;

/* Runs this program in the namespaces; returns the exit code for main(). 77 = skipped. */
int fixture_outside(const char *self);
/* In the namespaces: loopback, tmpfs, dockerd, image. Aborts the program with a message when it
 * cannot. */
void fixture_setup(const char *dir);
void fixture_start_dockerd(void);
void fixture_stop_dockerd(void); /* with SIGTERM, waits */
void fixture_teardown(void);
/* Runs a program to its end; its exit code, or -1 after `timeout_s`. */
int fixture_run(unsigned timeout_s, const char *const *argv);
pid_t fixture_spawn(const char *const *argv);
void fixture_end(pid_t pid, int signal); /* and waits */
/* A call of the test's own to the engine; the answer's status. `ret_body` may be NULL. */
long fixture_call(const char *method, const char *path, const char *body, char **ret_body);
void fixture_sleep_ms(unsigned ms);
