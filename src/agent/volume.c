/* flocker-volume: what an operator does with the node's own storage. */
#include "agent/agent.h"
#include "agent/config.h"
#include "base/options.h"
#include "base/str.h"
#include "drivers/zfs/adopt.h"

#include <stdio.h>
#include <unistd.h>

struct options {
    const char *config, *state_dir, *owner;
    bool yes;
};

static struct err *take(void *cookie, int id, const char *value)
{
    struct options *o = cookie;

    switch (id) {
    case 1:
        o->config = value;
        return NULL;
    case 2:
        o->state_dir = value;
        return NULL;
    case 3:
        o->owner = value;
        return NULL;
    default:
        o->yes = true;
        return NULL;
    }
}

static struct err *find_owner(const struct options *o, const json_t *section, struct uuid *ret_owner)
{
    if (!o->owner)
        return zfs_old_owner(driver_option_string(section, "volume_config_path", "/etc/flocker/volume.json"), ret_owner);
    if (uuid_parse(o->owner, ret_owner))
        return NULL;
    return err_new(ERR_INVALID, "--owner is a UUID, not '%s'", o->owner);
}

static const char *what_is(const struct zfs_old *v, bool yes)
{
    switch (v->state) {
    case ZFS_OLD_READY:
        return yes ? "adopted" : "would be adopted";
    case ZFS_OLD_UNFINISHED:
        return yes ? "adopted (was unfinished)" : "adoption unfinished, would go on";
    case ZFS_OLD_REPLICA:
        return "a copy that another node owns: left alone";
    default:
        return "this dataset is here already: left alone";
    }
}

static struct err *adopt_all(const struct driver_config *config, const struct zfs_old *all, size_t n, bool yes)
{
    for (size_t i = 0; i < n; i++) {
        bool wanted = all[i].state == ZFS_OLD_READY || all[i].state == ZFS_OLD_UNFINISHED;

        if (yes && wanted)
            TRY(zfs_old_adopt(config, &all[i]));
        printf("%s  %s", UUID_STR(&all[i].dataset), what_is(&all[i], yes));
        if (all[i].limit)
            printf(", maximum_size %llu", (unsigned long long)all[i].limit);
        (void)putchar('\n');
    }
    return NULL;
}

static struct err *run(const struct options *o, const json_t *section)
{
    struct driver_config config = {.options = section, .state_dir = o->state_dir};
    const struct driver *d;
    struct zfs_old *all = NULL;
    struct uuid owner;
    size_t n = 0;
    const char *backend = json_string_value(json_object_get(section, "backend"));

    if (!streq(backend, "zfs"))
        return err_new(ERR_UNSUPPORTED, "the backend of this node is %s: only volumes in ZFS pools can be adopted", backend);
    TRY(driver_find(backend, &d));
    TRY(driver_check_options(d, section));
    TRY(find_owner(o, section, &owner));
    TRY(zfs_old_list(&config, &owner, &all, &n));
    struct err *e = adopt_all(&config, all, n, o->yes);

    if (!e && !n)
        (void)puts("The pool holds no volumes of Flocker 1.");
    else if (!e && !o->yes)
        (void)puts("Nothing was changed. Add --yes to adopt.");
    for (size_t i = 0; i < n; i++)
        free(all[i].name);
    free(all);
    return e;
}

static struct err *adopt(const struct options *o)
{
    struct agent_config config;

    if (geteuid() != 0)
        return err_new(ERR_DENIED, "this needs root");
    TRY(agent_config_load(o->config, &config));
    struct err *e = run(o, config.dataset);

    agent_config_done(&config);
    return e;
}

int volume_main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'c', "agent-config", "FILE", "Configuration of the agent (/etc/flocker/agent.yml)"},
        {2, 0, "state-dir", "DIR", "The agent's state folder (" AGENT_STATE_DIR ")"},
        {3, 0, "owner", "UUID", "Whose volumes are this node's (default: as Flocker 1 wrote in volume.json)"},
        {4, 0, "yes", NULL, "Do it; otherwise it is only said what would be done"}};
    static const struct cli_spec spec = {
        .program = "flocker-volume",
        .synopsis = "flocker-volume [options] adopt",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .text = "Takes over the volumes that Flocker 1 left in this node's ZFS pool.",
        .take = take,
    };
    struct options o = {.config = "/etc/flocker/agent.yml", .state_dir = AGENT_STATE_DIR};
    int first, status;

    if (!cli_begin(&spec, &o, argc, argv, &first, &status))
        return status;
    if (argc - first != 1 || !streq(argv[first], "adopt"))
        return cli_usage_error(&spec, "The one command is: adopt");
    struct err *e = adopt(&o);

    return e ? cli_fail(e) : 0;
}
