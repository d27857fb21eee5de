/* The one program: what it does depends on the name it is called by, or on its first argument. */
#include "agent/agent.h"
#include "base/log.h"
#include "base/str.h"
#include "base/options.h"
#include "cli/programs.h"
#include "control/control.h"
#include "model/json.h"

#include <errno.h>

static int only_text(int argc, char **argv, const struct cli_spec *spec)
{
    int first, status;

    if (!cli_begin(spec, NULL, argc, argv, &first, &status))
        return status;
    printf("%s\n", spec->text);
    return 0;
}

static struct err *ignore_option(void *cookie, int id, const char *value)
{
    (void)cookie, (void)id, (void)value;
    return NULL;
}

/* The names of the original's other daemons: old unit files that start them do no harm. */
static int container_agent_main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'c', "agent-config", "FILE", "Accepted, not used"}};
    static const struct cli_spec spec = {
        .program = "flocker-container-agent",
        .synopsis = "flocker-container-agent [options]",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .text = "flocker-agent includes the container agent: there is nothing to start here.",
        .take = ignore_option,
    };

    return only_text(argc, argv, &spec);
}

static int docker_plugin_main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'c', "agent-config", "FILE", "Accepted, not used"},
        {2, 'p', "rest-api-port", "PORT", "Accepted, not used"}};
    static const struct cli_spec spec = {
        .program = "flocker-docker-plugin",
        .synopsis = "flocker-docker-plugin [options]",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .text = "flocker-agent serves the Docker plugin's socket: there is nothing to start here.",
        .take = ignore_option,
    };

    return only_text(argc, argv, &spec);
}

static const struct program {
    const char *name;
    int (*function)(int argc, char **argv);
    const char *description; /* NULL = another name of the one above */
} programs[] = {
    {"flocker-control", control_main, "The control service"},
    {"flocker-agent", agent_main, "The agent of a node"},
    {"flocker-dataset-agent", agent_main, NULL},
    {"flocker-volume", volume_main, "Take over volumes of Flocker 1"},
    {"flocker-container-agent", container_agent_main, "Nothing: flocker-agent includes it"},
    {"flocker-docker-plugin", docker_plugin_main, "Nothing: flocker-agent serves its socket"},
    {"flocker-ca", ca_main, "Create the cluster's certificates"},
    {"flocker-deploy", deploy_main, "Configure the cluster from deployment and application files"},
    {"flockerctl", flockerctl_main, "Look at the cluster and change it"},
    {"flocker-volumes", flockerctl_main, NULL},
    {"flocker-node-era", node_era_main, "Print the era (boot id) of this node"},
};

static const struct program *find_program(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        if (streq(programs[i].name, name))
            return &programs[i];
    }
    return NULL;
}

/* "flocker-ca" is `flocker ca`, "flockerctl" is `flocker ctl`. */
static const struct program *find_command(const char *word)
{
    CLEANUP_FREE char *dashed = xasprintf("flocker-%s", word);
    CLEANUP_FREE char *joined = xasprintf("flocker%s", word);
    const struct program *p = find_program(word);

    if (!p)
        p = find_program(dashed);
    return p ? p : find_program(joined);
}

static int run(const struct program *p, int argc, char **argv)
{
    log_setup(p->name, LOG_LEVEL_INFO);
    return p->function(argc, argv);
}

static struct err *no_option(void *cookie, int id, const char *value)
{
    (void)cookie, (void)id, (void)value;
    return err_new(ERR_INTERNAL, "unexpected option");
}

static int flocker_main(int argc, char **argv)
{
    CLEANUP_STR struct str text = {0};
    int first, status;

    str_append(&text, "Commands (each is also a program of its own name):\n");
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        if (programs[i].description)
            str_appendf(&text, "  %-24s %s\n", programs[i].name, programs[i].description);
    }
    str_append(&text, "\nRun flocker COMMAND --help for its usage.");
    struct cli_spec spec = {
        .program = "flocker",
        .synopsis = "flocker [options] COMMAND ...",
        .text = text.data,
        .stop_at_operand = true,
        .take = no_option,
    };
    if (!cli_begin(&spec, NULL, argc, argv, &first, &status))
        return status;
    if (first == argc) {
        cli_print_help(&spec, stdout);
        return 0;
    }
    const struct program *p = find_command(argv[first]);
    if (!p)
        return cli_usage_error(&spec, "Unknown command: %s", argv[first]);
    return run(p, argc - first, argv + first);
}

int main(int argc, char **argv)
{
    const char *path = argc > 0 && argv[0] ? argv[0] : "flocker";
    const char *slash = strrchr(path, '/');
    const struct program *p = find_program(slash ? slash + 1 : path);

    json_setup();
    int status = argc > 0 ? (p ? run(p, argc, argv) : flocker_main(argc, argv)) : 1;

    /* What could not be printed (disk full) was not done for whoever reads it. */
    if (fflush(stdout) != 0 && errno != EPIPE) {
        fprintf(stderr, "Error: cannot write the output: %s\n", strerror(errno));
        return 1;
    }
    return status;
}
