/* The thread that listens to a Docker engine's events. */
#pragma once

#include "base/uuid.h"
#include "engines/container_engine.h"

#define DOCKER_WATCH_THREAD "docker-watch" /* name of the thread */

struct docker_watch;

struct err *docker_watch_start(const char *socket, const struct uuid *cluster,
                               container_engine_changed_fn *changed, void *cookie,
                               struct docker_watch **ret_watch) MUST_USE;
/* Ends the thread; accepts NULL; returns NULL. */
struct docker_watch *docker_watch_stop(struct docker_watch *w);
