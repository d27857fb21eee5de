/* What a service manager (systemd) is told about this process: that it is ready, that its loop still turns, that it ends. Nothing
 * is said when nobody asked ($NOTIFY_SOCKET, $WATCHDOG_USEC), or without libsystemd. Loop thread. */
#pragma once

#include "net/loop.h"

struct service {
    struct timer alive;
    uint64_t every_us; /* between two signs of life; 0 = none are asked for */
};

/* Begins the signs of life, too: twice within the time after which the manager takes this process for hung. */
void service_ready(struct service *s, struct loop *l);
/* Ends them. Harmless without service_ready(). */
void service_stopping(struct service *s);
