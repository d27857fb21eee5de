/* Proof that the processes of a container are gone, independent of the engine. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* A pidfd of the container's first process, or -1 when `pid` is (from here) not a process of
 * container `id`: gone already, or the engine lives in another pid namespace. When that process has
 * ended, all processes of the container have: the kernel reaps the first one of a pid namespace
 * last. */
int docker_process_open(pid_t pid, const char *id);
/* Waits for its end; true when it came. `fd` -1 is true. */
bool docker_process_wait(int fd, int timeout_ms);
