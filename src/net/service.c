#include "net/service.h"

#include "base/now.h"

#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#else
static int sd_notify(int unset_environment, const char *state)
{
    (void)unset_environment, (void)state;
    return 0;
}

static int sd_watchdog_enabled(int unset_environment, uint64_t *usec)
{
    (void)unset_environment, (void)usec;
    return 0;
}
#endif

static void be_alive(void *cookie)
{
    struct service *s = cookie;

    (void)sd_notify(0, "WATCHDOG=1");
    timer_set(&s->alive, now_os().mono_us + s->every_us);
}

void service_ready(struct service *s, struct loop *l)
{
    uint64_t limit_us = 0;

    timer_init(&s->alive, l, be_alive, s);
    s->every_us = sd_watchdog_enabled(0, &limit_us) > 0 ? limit_us / 2 : 0;
    (void)sd_notify(0, "READY=1");
    if (s->every_us)
        be_alive(s);
}

void service_stopping(struct service *s)
{
    timer_cancel(&s->alive);
    (void)sd_notify(0, "STOPPING=1");
}
