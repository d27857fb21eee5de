#include "extended.h"

#include "base/mem.h"
#include "base/str.h"

void container_extend(struct container *c)
{
    c->has_entrypoint = true;
    c->n_entrypoint = 2;
    c->entrypoint = xmemdup((char *[]){xstrdup("tini"), xstrdup("--")}, 2 * sizeof(char *));
    c->user = xstrdup("70:70");
    c->working_dir = xstrdup("/srv/\xc3\xa9");
    c->stop_signal = xstrdup("SIGQUIT");
    c->stop_grace_ms = 90500;
    c->labels = xmemdup((struct env_entry[]){{xstrdup("tier"), xstrdup("db")}}, sizeof(struct env_entry));
    c->n_labels = 1;
    c->health = xcalloc(1, sizeof(*c->health));
    c->health->test = xmemdup((char *[]){xstrdup("CMD"), xstrdup("pg_isready")}, 2 * sizeof(char *));
    c->health->n_test = 2;
    c->health->interval_ms = 5000;
    c->health->timeout_ms = 2500;
    c->health->start_period_ms = 60000;
    c->health->retries = 3;
    c->nano_cpus = 1500000000;
    c->depends_on = xmemdup((struct dependency[]){{xstrdup("cache"), DEPENDENCY_HEALTHY},
                                                  {xstrdup("schema"), DEPENDENCY_COMPLETED}},
                            2 * sizeof(struct dependency));
    c->n_depends_on = 2;
}
