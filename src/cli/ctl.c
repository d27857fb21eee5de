/* flockerctl: table of commands, options, and where the control service and the certificates are
 * (contract section 7.3). */
#include "cli/ctl.h"

#include "base/str.h"
#include "cli/cluster_yml.h"
#include "cli/pair_file.h"
#include "cli/programs.h"
#include "cli/text.h"

#include <libgen.h>
#include <unistd.h>

#define DEFAULT_PORT 4523

/* ---- options of the program ---- */

enum { OPT_CLUSTER_YML = 1, OPT_CERTS_PATH, OPT_USER, OPT_CLUSTER_CRT, OPT_CONTROL, OPT_PORT };

struct globals {
    const char *cluster_yml; /* NULL = ./cluster.yml if there is one */
    const char *certs_path;  /* NULL = not given */
    const char *user;
    const char *cluster_crt;
    const char *control_service;
    long port;
    bool json;
};

enum {
    OPT_OUTPUT = 100,
    OPT_LONG,
    OPT_DELETED,
    OPT_HUMAN,
    OPT_NODE,
    OPT_METADATA,
    OPT_SIZE,
    OPT_DATASET,
    OPT_DESTINATION,
    OPT_WAIT,
    OPT_FOLLOW,
    OPT_YES,
    OPT_NO_WAIT,
    OPT_FORCE,
    OPT_REASON,
};

#define OUTPUT_OPTION                                                                              \
    {                                                                                              \
        OPT_OUTPUT, 'o', "output", "table|json", "How to print (default: table)"                   \
    }
#define LONG_OPTION                                                                                \
    {                                                                                              \
        OPT_LONG, 'l', "long", NULL, "Print complete UUIDs"                                        \
    }
#define NODE_OPTION                                                                                \
    {                                                                                              \
        OPT_NODE, 'n', "node", "NODE", "UUID prefix or address of the node (required)"             \
    }
#define DATASET_OPTION                                                                             \
    {                                                                                              \
        OPT_DATASET, 'd', "dataset", "DATASET", "UUID prefix or name of the dataset (required)"    \
    }
#define DESTINATION_OPTION                                                                         \
    {                                                                                              \
        OPT_DESTINATION, 't', "destination", "NODE",                                               \
            "UUID prefix or address of the node (required)"                                        \
    }
#define METADATA_OPTION                                                                            \
    {                                                                                              \
        OPT_METADATA, 'm', "metadata", "a=b,c=d", "Metadata of the dataset, such as name=orders"   \
    }
#define SIZE_OPTION                                                                                \
    {                                                                                              \
        OPT_SIZE, 's', "size", "SIZE", "Bytes, or with k, M, G, T: 1.5G"                           \
    }
#define WAIT_OPTION                                                                                \
    {                                                                                              \
        OPT_WAIT, 0, "wait", "[SECONDS]", "Wait until it is done (default: at most 300 s)"         \
    }

static struct err *take_output(const char *value, bool *ret_json)
{
    if (!streq(value, "json") && !streq(value, "table"))
        return err_new(ERR_INVALID, "--output must be table or json, not '%s'", value);
    *ret_json = streq(value, "json");
    return NULL;
}

static struct err *take_global(void *cookie, int id, const char *value)
{
    struct globals *g = cookie;

    switch (id) {
    case OPT_CLUSTER_YML:
        g->cluster_yml = value;
        return NULL;
    case OPT_CERTS_PATH:
        g->certs_path = value;
        return NULL;
    case OPT_USER:
        g->user = value;
        return NULL;
    case OPT_CLUSTER_CRT:
        g->cluster_crt = value;
        return NULL;
    case OPT_CONTROL:
        g->control_service = value;
        return NULL;
    case OPT_PORT:
        return cli_parse_number("--control-port", value, 1, 65535, &g->port);
    default:
        return take_output(value, &g->json);
    }
}

static struct err *take_wait(struct ctl_args *a, const char *value)
{
    a->wait = true;
    a->wait_seconds = CTL_WAIT_SECONDS;
    return value ? cli_parse_number("--wait", value, 0, 10000000, &a->wait_seconds) : NULL;
}

static struct err *take_argument(void *cookie, int id, const char *value)
{
    struct ctl_args *a = cookie;

    if (id >= OPT_VOLUME)
        return ctl_take_container_option(a, id, value);
    switch (id) {
    case OPT_OUTPUT:
        return take_output(value, &a->json);
    case OPT_LONG:
        a->details = true;
        return NULL;
    case OPT_DELETED:
        a->deleted = true;
        return NULL;
    case OPT_YES:
        a->yes = true;
        return NULL;
    case OPT_REASON:
        a->reason = value;
        return NULL;
    case OPT_NO_WAIT:
        a->no_wait = true;
        return NULL;
    case OPT_FORCE:
        a->force = true;
        return NULL;
    case OPT_NODE:
        a->node = value;
        return NULL;
    case OPT_METADATA:
        return text_parse_metadata(value, a->metadata);
    case OPT_SIZE:
        return text_parse_size(value, &a->size);
    case OPT_DATASET:
        a->dataset = value;
        return NULL;
    case OPT_DESTINATION:
        a->destination = value;
        return NULL;
    case OPT_WAIT:
        return take_wait(a, value);
    default: /* --human: accepted, no effect */
        return NULL;
    }
}

/* ---- commands ---- */

struct command {
    const char *name;
    const char *alias; /* or NULL */
    struct err *(*run)(struct ctl *c);
    struct cli_spec spec;
    int min_operands;
    int max_operands; /* -1 = any number */
    const char *operands;
    const char *summary;
    bool can_be_local; /* also useful without a control service */
};

static const struct cli_option nodes_options[] = {LONG_OPTION, OUTPUT_OPTION};
static const struct cli_option list_options[] = {
    {OPT_DELETED, 'd', "deleted", NULL, "Also list deleted datasets"},
    LONG_OPTION,
    {OPT_HUMAN, 'h', "human", NULL, "Accepted, no effect: sizes always are for people"},
    OUTPUT_OPTION,
};
static const struct cli_option create_options[] = {
    NODE_OPTION, METADATA_OPTION, SIZE_OPTION, WAIT_OPTION, OUTPUT_OPTION,
};
static const struct cli_option destroy_options[] = {DATASET_OPTION, WAIT_OPTION, OUTPUT_OPTION};
static const struct cli_option move_options[] = {DATASET_OPTION, DESTINATION_OPTION, WAIT_OPTION,
                                                 OUTPUT_OPTION};
static const struct cli_option grow_options[] = {SIZE_OPTION, WAIT_OPTION, OUTPUT_OPTION};
static const struct cli_option set_metadata_options[] = {METADATA_OPTION, OUTPUT_OPTION};
static const struct cli_option adopt_options[] = {
    {OPT_NODE, 'n', "node", "NODE", "UUID prefix or address of the node whose data of DATASET count"},
    {OPT_YES, 'y', "yes", NULL, "Also while nodes that may know better are not here"},
    OUTPUT_OPTION,
};
static const struct cli_option release_options[] = {
    {OPT_FORCE, 0, "force", NULL, "Also while Docker has it mounted, or on a node that does not answer"},
    OUTPUT_OPTION,
};
static const struct cli_option output_options[] = {OUTPUT_OPTION};
static const struct cli_option verify_options[] = {
    {OPT_WAIT, 0, "wait", "[SECONDS]", "Wait no longer than that, 300 s if not said (default: until it has ended)"},
    {OPT_NO_WAIT, 0, "no-wait", NULL, "Only begin it"},
    OUTPUT_OPTION,
};
static const struct cli_option events_options[] = {
    {OPT_FOLLOW, 'f', "follow", NULL, "Accepted, no effect: it always goes on"},
    OUTPUT_OPTION,
};
static const struct cli_option create_container_options[] = {
    NODE_OPTION,
    {OPT_VOLUME, 'V', "volume", "DATASET:/PATH[:ro]",
     "Mount this dataset there in the container (repeatable)"},
    {OPT_PUBLISH, 'p', "publish", "EXTERNAL:INTERNAL",
     "Reach this port of the container (repeatable)"},
    {OPT_ENV, 'e', "env", "NAME=VALUE", "Environment variable (repeatable)"},
    {OPT_LABEL, 0, "label", "NAME=VALUE", "Label of the container (repeatable)"},
    {OPT_RESTART, 0, "restart", "POLICY", "never (default), always or on-failure"},
    {OPT_MEMORY, 'm', "memory", "SIZE", "Memory limit"},
    {OPT_CPU_SHARES, 0, "cpu-shares", "N", "Share of the processor, 1 to 1024"},
    {OPT_CPUS, 0, "cpus", "N", "Limit of processors, such as 0.5"},
    {OPT_ENTRYPOINT, 0, "entrypoint", "WORD",
     "In place of the image's own, before the command (repeatable: one word each)"},
    {OPT_RUN_AS, 'u', "user", "USER[:GROUP]", "Run as that user"},
    {OPT_WORKDIR, 'w', "workdir", "/PATH", "Working directory"},
    {OPT_STOP_SIGNAL, 0, "stop-signal", "SIGNAL", "Signal that asks it to end"},
    {OPT_STOP_GRACE, 0, "stop-grace", "TIME", "Time that it has then, such as 30s or 2m"},
    {OPT_DEPENDS_ON, 0, "depends-on", "NAME[:CONDITION]",
     "Start after that container is started (default), healthy or completed (repeatable)"},
    {OPT_HEALTH_CMD, 0, "health-cmd", "COMMAND", "Shell command that says whether it is well"},
    {OPT_HEALTH_INTERVAL, 0, "health-interval", "TIME", "How often it is asked"},
    {OPT_HEALTH_TIMEOUT, 0, "health-timeout", "TIME", "How long the answer may take"},
    {OPT_HEALTH_START, 0, "health-start-period", "TIME", "Failures do not count until then"},
    {OPT_HEALTH_RETRIES, 0, "health-retries", "N", "So many failures in a row make it unhealthy"},
    {OPT_NO_HEALTH, 0, "no-healthcheck", NULL, "Also without the image's own check"},
    WAIT_OPTION,
    OUTPUT_OPTION,
};
static const struct cli_option destroy_container_options[] = {WAIT_OPTION, OUTPUT_OPTION};
static const struct cli_option move_container_options[] = {DESTINATION_OPTION, WAIT_OPTION,
                                                           OUTPUT_OPTION};

static const struct cli_option drain_options[] = {
    {OPT_DESTINATION, 't', "to", "NODE", "UUID prefix or address of the node that gets it all (default: spread it)"},
    WAIT_OPTION,
    OUTPUT_OPTION,
};

static const struct cli_option fence_options[] = {
    {OPT_YES, 0, "confirm-off", NULL, "Sign that the node is off (without it: say what a fence would free and lose)"},
    {OPT_REASON, 'r', "reason", "TEXT", "Why, for the audit log"},
    OUTPUT_OPTION,
};

#define SPEC(the_synopsis, the_options)                                                            \
    {                                                                                              \
        .program = "flockerctl", .synopsis = "flockerctl [options] " the_synopsis,                 \
        .options = the_options, .n_options = ARRAY_SIZE(the_options), .take = take_argument        \
    }

static const struct command commands[] = {
    {"list-nodes", "status", ctl_list_nodes, SPEC("list-nodes [-l]", nodes_options),
     .operands = "no arguments", .summary = "List the nodes that are alive"},
    {"list", "ls", ctl_list, SPEC("list [-d] [-l]", list_options), .operands = "no arguments",
     .summary = "List the datasets"},
    {"create", NULL, ctl_create, SPEC("create -n NODE [-m METADATA] [-s SIZE]", create_options),
     .operands = "no arguments", .summary = "Create a dataset"},
    {"destroy", NULL, ctl_destroy, SPEC("destroy -d DATASET", destroy_options),
     .operands = "no arguments", .summary = "Destroy a dataset and its data"},
    {"move", NULL, ctl_move, SPEC("move -d DATASET -t NODE", move_options),
     .operands = "no arguments", .summary = "Move a dataset to another node"},
    {"grow", NULL, ctl_grow, SPEC("grow -s SIZE DATASET", grow_options), 1, 1, "one dataset",
     "Make a dataset larger"},
    {"set-metadata", NULL, ctl_set_metadata,
     SPEC("set-metadata -m METADATA DATASET", set_metadata_options), 1, 1, "one dataset",
     "Replace the metadata of a dataset"},
    {"adopt", NULL, ctl_adopt, SPEC("adopt [-y] [DATASET -n NODE]", adopt_options), 0, 1,
     "at most one dataset", "Settle a store that was put back from a copy"},
    {"list-replicas", NULL, ctl_list_replicas, SPEC("list-replicas [-l]", nodes_options), .operands = "no arguments",
     .summary = "List the copies that are kept for moving back"},
    {"drop-replica", NULL, ctl_drop_replica, SPEC("drop-replica DATASET", output_options), 1, 1, "one dataset",
     "Remove the copy of a dataset that is kept for moving back"},
    {"verify", NULL, ctl_verify, SPEC("verify DATASET", verify_options), 1, 1, "one dataset",
     "Compare the copy that is kept for moving back with the dataset"},
    {"leases", NULL, ctl_leases, SPEC("leases [-l]", nodes_options), .operands = "no arguments",
     .summary = "List who keeps which dataset where it is"},
    {"release", NULL, ctl_release, SPEC("release [--force] DATASET", release_options), 1, 1, "one dataset",
     "End the lease that keeps a dataset where it is"},
    {"show", NULL, ctl_show, SPEC("show DATASET", output_options), 1, 1, "one dataset",
     "Print everything about a dataset"},
    {"why", NULL, ctl_why, SPEC("why DATASET|CONTAINER", output_options), 1, 1,
     "one dataset or container", "Print why something is not as wanted, and what to do"},
    {"events", NULL, ctl_events, SPEC("events [--follow]", events_options), .operands = "no arguments",
     .summary = "Print what changes, as it changes, until interrupted"},
    {"ps", NULL, ctl_ps, SPEC("ps [-l]", nodes_options), .operands = "no arguments",
     .summary = "List the containers"},
    {"create-container", NULL, ctl_create_container,
     SPEC("create-container -n NODE [options] NAME IMAGE [-- COMMAND...]",
          create_container_options),
     2, -1, "a name, an image and maybe a command line", "Start a container"},
    {"destroy-container", NULL, ctl_destroy_container,
     SPEC("destroy-container NAME", destroy_container_options), 1, 1, "one container",
     "Remove a container; its datasets stay"},
    {"move-container", NULL, ctl_move_container,
     SPEC("move-container -t NODE NAME", move_container_options), 1, 1, "one container",
     "Move a container, with its datasets, to another node"},
    {"drain", NULL, ctl_drain, SPEC("drain [-t NODE] [--wait] NODE", drain_options), 1, 1,
     "one node", "Move everything away from a node, and give it nothing new"},
    {"cordon", NULL, ctl_cordon, SPEC("cordon NODE", output_options), 1, 1, "one node",
     "Give a node nothing new by automatic placement"},
    {"uncordon", NULL, ctl_uncordon, SPEC("uncordon NODE", output_options), 1, 1, "one node",
     "Let a node get something new again"},
    {"fence", NULL, ctl_fence, SPEC("fence NODE [--confirm-off] [-r TEXT]", fence_options), 1, 1, "one node",
     "Say that a dead node is off, so that others get what it owned"},
    {"unfence", NULL, ctl_unfence, SPEC("unfence NODE", output_options), 1, 1, "one node", "Take that back"},
    {"drop-copy", NULL, ctl_drop_copy, SPEC("drop-copy DATASET NODE", output_options), 2, 2, "a dataset and a node",
     "Remove what a node kept of a dataset since it was fenced"},
    {"version", NULL, ctl_version, SPEC("version", output_options), .operands = "no arguments",
     .summary = "Print the versions of this program and of the control service",
     .can_be_local = true},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (streq(commands[i].name, name) || (commands[i].alias && streq(commands[i].alias, name)))
            return &commands[i];
    }
    return NULL;
}

/* ---- where the control service is ---- */

struct place {
    char *control_service; /* NULL = unknown */
    char *authority;
    char *certificate;
    char *key;
};

static void place_done(struct place *p)
{
    free(p->control_service);
    free(p->authority);
    free(p->certificate);
    free(p->key);
    *p = (struct place){0};
}

/* Reads cluster.yml, and agent.yml beside it, for what the options did not say. */
static struct err *read_cluster_yml(const char *path, const char *directory,
                                    struct cluster_yml *ret_config)
{
    CLEANUP_FREE char *text = NULL;
    CLEANUP_FREE char *agent_path = xasprintf("%s/agent.yml", directory);
    CLEANUP_FREE char *agent_text = NULL;

    TRY(text_file_read("Cannot read the cluster's file.", path, &text));
    TRY(err_wrap(cluster_yml_parse(text, strlen(text), ret_config), "%s", path));
    if (ret_config->control_service || access(agent_path, F_OK) < 0)
        return NULL;
    TRY(text_file_read("Cannot read the agent's configuration.", agent_path, &agent_text));
    return err_wrap(
        agent_yml_control_service(agent_text, strlen(agent_text), &ret_config->control_service),
        "%s", agent_path);
}

static const char *first_of(const char *a, const char *b, const char *c)
{
    return a ? a : b ? b : c;
}

/* Options win over the environment, the environment over cluster.yml, that over the defaults. */
static struct err *find_place(const struct globals *g, struct place *ret_place)
{
    const char *yml = g->cluster_yml ? g->cluster_yml : "./cluster.yml";
    CLEANUP_FREE char *yml_copy = xstrdup(yml);
    const char *directory = dirname(yml_copy);
    CLEANUP(cluster_yml_done) struct cluster_yml config = {0};
    bool present = g->cluster_yml || access(yml, F_OK) == 0;

    if (present)
        TRY(read_cluster_yml(yml, directory, &config));
    const char *certs = first_of(g->certs_path, present ? directory : NULL, ".");
    const char *user = first_of(g->user, config.user, "user");
    const char *cluster_crt = first_of(g->cluster_crt, NULL, "cluster.crt");
    bool absolute = *cluster_crt == '/';
    *ret_place = (struct place){
        .control_service = xstrdup_null(first_of(g->control_service, config.control_service, NULL)),
        .authority = absolute ? xstrdup(cluster_crt) : xasprintf("%s/%s", certs, cluster_crt),
        .certificate = xasprintf("%s/%s.crt", certs, user),
        .key = xasprintf("%s/%s.key", certs, user),
    };
    return NULL;
}

/* ---- running ---- */

static struct err *run_at(const struct command *cmd, const struct globals *g, struct ctl_args *args)
{
    CLEANUP(place_done) struct place place = {0};
    struct ctl c = {.args = args};

    TRY(find_place(g, &place));
    if (!place.control_service && !cmd->can_be_local)
        return err_new(
            ERR_INVALID,
            "must specify --control-service (or set FLOCKER_CONTROL_SERVICE) to the address "
            "of the control service");
    c.control_service = place.control_service;
    if (place.control_service) {
        struct api_config rc = {
            .host = place.control_service,
            .port = (uint16_t)g->port,
            .authority = place.authority,
            .certificate = place.certificate,
            .key = place.key,
        };
        TRY(api_open(&rc, &c.api));
    }
    struct err *e = cmd->run(&c);
    api_free(c.api);
    return e;
}

static int run_command(const struct command *cmd, const struct globals *g, int argc, char **argv)
{
    struct ctl_args args = {
        .json = g->json,
        .metadata = json_object(),
        .container = json_object(),
        .volumes = json_array(),
    };
    struct cli_spec spec = cmd->spec;
    int first, status = 1;

    spec.text = cmd->summary;
    enum cli_next next = cli_parse(&spec, &args, argc, argv, &first);
    if (next == CLI_GO_ON) {
        args.operands = argv + first;
        args.n_operands = argc - first;
        if (args.n_operands < cmd->min_operands ||
            (cmd->max_operands >= 0 && args.n_operands > cmd->max_operands)) {
            status = cli_usage_error(&spec, "Wrong number of arguments: %s takes %s.", cmd->name,
                                     cmd->operands);
        } else {
            struct err *e = run_at(cmd, g, &args);
            if (e) {
                char *text = ctl_harmless(e->text);
                free(e->text);
                e->text = text;
            }
            status = e ? cli_fail(e) : 0;
        }
    } else if (next == CLI_EXIT_OK) {
        status = 0;
    }
    json_decref(args.metadata);
    json_decref(args.container);
    json_decref(args.volumes);
    return status;
}

static const struct cli_option global_options[] = {
    {OPT_CONTROL, 0, "control-service", "HOST", "Name or address of the control service"},
    {OPT_PORT, 0, "control-port", "PORT", "Its port (default: 4523)"},
    {OPT_CERTS_PATH, 0, "certs-path", "DIR", "Where the certificates are (default: .)"},
    {OPT_USER, 0, "user", "NAME", "Uses NAME.crt and NAME.key (default: user)"},
    {OPT_CLUSTER_CRT, 0, "cluster-crt", "FILE",
     "Certificate of the cluster (default: cluster.crt)"},
    {OPT_CLUSTER_YML, 0, "cluster-yml", "FILE",
     "Description of the cluster (default: ./cluster.yml)"},
    OUTPUT_OPTION,
};

static char *main_text(void)
{
    CLEANUP_STR struct str text = {0};

    str_append(&text, "Commands:\n");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *c = &commands[i];
        CLEANUP_FREE char *names =
            c->alias ? xasprintf("%s (%s)", c->name, c->alias) : xstrdup(c->name);
        str_appendf(&text, "  %-22s %s\n", names, c->summary);
    }
    str_append(&text,
               "\nFLOCKER_CERTS_PATH, FLOCKER_USER and FLOCKER_CONTROL_SERVICE in the environment "
               "stand for\nthe options of these names. Run flockerctl COMMAND --help for the "
               "options of a command.");
    return str_steal(&text);
}

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

int flockerctl_main(int argc, char **argv)
{
    struct globals g = {
        .certs_path = from_environment("FLOCKER_CERTS_PATH"),
        .user = from_environment("FLOCKER_USER"),
        .control_service = from_environment("FLOCKER_CONTROL_SERVICE"),
        .port = DEFAULT_PORT,
    };
    CLEANUP_FREE char *text = main_text();
    struct cli_spec spec = {
        .program = "flockerctl",
        .synopsis = "flockerctl [options] COMMAND [options of the command]",
        .options = global_options,
        .n_options = ARRAY_SIZE(global_options),
        .text = text,
        .stop_at_operand = true,
        .take = take_global,
    };
    int first, status;

    if (!cli_begin(&spec, &g, argc, argv, &first, &status))
        return status;
    if (first == argc) {
        fprintf(stderr, "Please specify a command.\nTry --help for usage details.\n");
        return 1;
    }
    const struct command *cmd = find_command(argv[first]);
    if (!cmd)
        return cli_usage_error(&spec, "Unknown command: %s", argv[first]);
    return run_command(cmd, &g, argc - first, argv + first);
}
