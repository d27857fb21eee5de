/* flocker-deploy: makes what the files say the cluster's whole configuration (contract sections 7.1 and 8). */
#include "cli/deploy.h"

#include "base/str.h"
#include "cli/api_answer.h"
#include "cli/programs.h"

#include <stdio.h>
#include <unistd.h>

#define DEFAULT_PORT 4523

enum {
    OPT_PORT = 1,
    OPT_AUTHORITY,
    OPT_CERTIFICATE,
    OPT_KEY,
    OPT_DIRECTORY,
    OPT_USER,
    OPT_PROJECT,
    OPT_SPREAD,
    OPT_PLAN,
    OPT_WAIT,
    OPT_TIMEOUT,
    OPT_OUTPUT,
};

static struct err *take_option(void *cookie, int id, const char *value)
{
    struct deploy_args *a = cookie;

    switch (id) {
    case OPT_PORT:
        return cli_parse_number("--port", value, 1, 65535, &a->port);
    case OPT_AUTHORITY:
        a->authority = value;
        return NULL;
    case OPT_CERTIFICATE:
        a->certificate = value;
        return NULL;
    case OPT_KEY:
        a->key = value;
        return NULL;
    case OPT_DIRECTORY:
        a->directory = value;
        return NULL;
    case OPT_USER:
        a->user = value;
        return NULL;
    case OPT_PROJECT:
        a->project = value;
        if (!*value || !str_is_utf8(value, strlen(value)))
            return err_new(ERR_INVALID, "--project must be a UTF-8 text that is not empty");
        return NULL;
    case OPT_SPREAD:
        a->spread = true;
        return NULL;
    case OPT_PLAN:
        a->plan = true;
        return NULL;
    case OPT_WAIT:
        a->wait = true;
        return value ? cli_parse_number("--wait", value, 0, 10000000, &a->timeout) : NULL;
    case OPT_TIMEOUT:
        a->has_timeout = true;
        return cli_parse_number("--timeout", value, 0, 10000000, &a->timeout);
    default: /* OPT_OUTPUT */
        a->has_output = true;
        if (!streq(value, "json") && !streq(value, "table"))
            return err_new(ERR_INVALID, "--output must be table or json, not '%s'", value);
        a->json = streq(value, "json");
        return NULL;
    }
}

static const struct cli_option options[] = {
    {OPT_PORT, 'p', "port", "PORT", "Port of the control service (default: 4523)"},
    {OPT_PLAN, 0, "plan", NULL, "Change nothing; show what would change, and which data would move"},
    {OPT_OUTPUT, 'o', "output", "table|json", "How to print the plan (default: table)"},
    {OPT_WAIT, 0, "wait", "[SECONDS]", "Wait until all runs and is where it is to be"},
    {OPT_TIMEOUT, 0, "timeout", "SECONDS", "Wait at most so long (default: 300)"},
    {OPT_SPREAD, 0, "spread", NULL, "Place what no file places: where its data are, or where there is least"},
    {OPT_PROJECT, 0, "project", "NAME", "Of a Compose file (default: its name, or that of its folder)"},
    {OPT_DIRECTORY, 'c', "certificates-directory", "DIR", "Where cluster.crt, user.crt and user.key are (default: .)"},
    {OPT_USER, 0, "user", "NAME", "Uses NAME.crt and NAME.key (default: user)"},
    {OPT_AUTHORITY, 0, "cacert", "FILE", "Certificate of the cluster (default: cluster.crt)"},
    {OPT_CERTIFICATE, 0, "cert", "FILE", "Certificate of the user (default: user.crt)"},
    {OPT_KEY, 0, "key", "FILE", "Key of the user (default: user.key)"},
    {OPT_PORT, 0, "control-port", "PORT", "The same as --port, as flockerctl has it"},
    {OPT_DIRECTORY, 0, "certs-path", "DIR", "The same as --certificates-directory"},
    {OPT_AUTHORITY, 0, "cluster-crt", "FILE", "The same as --cacert"},
};

static const struct cli_spec spec = {
    .program = "flocker-deploy",
    .synopsis = "flocker-deploy [options] CONTROL-HOST [DEPLOYMENT-FILE] APPLICATION-FILE",
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .text = "Makes what the files say the configuration of the cluster: datasets and containers that are not in them go\n"
            "from the configuration, leases are released. Data are never deleted. The applications are in Flocker's\n"
            "format, Fig's, or a Compose file, which needs no deployment file when it says itself where its services are.",
    .take = take_option,
};

/* ---- certificates ---- */

struct credentials {
    char *authority, *certificate, *key; /* owned */
};

static void credentials_done(struct credentials *c)
{
    free(c->authority);
    free(c->certificate);
    free(c->key);
}

static struct err *only_one(const struct deploy_args *a, const char *value, const char *option)
{
    if (!a->directory || !value)
        return NULL;
    return err_new(ERR_INVALID,
                   "Cannot use --certificates-directory and --%s options together. Please specify either the directory "
                   "that holds the files, or each file.",
                   option);
}

static struct err *check_credential(const char *path, const char *option)
{
    if (access(path, F_OK) == 0)
        return NULL;
    return err_new(ERR_NOT_FOUND,
                   "File %s does not exist. Use the flocker-ca command to create the credential, or use the --%s flag to "
                   "specify the credential location.",
                   path, option);
}

static char *credential_path(const char *given, const char *directory, const char *name, const char *suffix)
{
    if (given)
        return xstrdup(given);
    return directory ? xasprintf("%s/%s%s", directory, name, suffix) : xasprintf("%s%s", name, suffix);
}

/* The environment stands for a directory that no option names. */
static struct err *find_credentials(const struct deploy_args *a, struct credentials *c)
{
    const char *from_environment = getenv("FLOCKER_CERTS_PATH");
    const char *directory = a->directory                                ? a->directory
                            : from_environment && *from_environment ? from_environment
                                                                        : NULL;
    const char *user = a->user ? a->user : getenv("FLOCKER_USER");

    TRY(only_one(a, a->authority, "cacert"));
    TRY(only_one(a, a->certificate, "cert"));
    TRY(only_one(a, a->key, "key"));
    user = user && *user ? user : "user";
    *c = (struct credentials){
        .authority = credential_path(a->authority, directory, "cluster", ".crt"),
        .certificate = credential_path(a->certificate, directory, user, ".crt"),
        .key = credential_path(a->key, directory, user, ".key"),
    };
    TRY(check_credential(c->authority, "cacert"));
    TRY(check_credential(c->certificate, "cert"));
    return check_credential(c->key, "key");
}

/* ---- running ---- */

/* The server's sentence as it is; ret_text is the caller's. */
static struct err *post(struct api *api, const char *path, const json_t *body, json_t **ret_answer, char **ret_refusal)
{
    CLEANUP_STR struct str text = {0};
    long status = 0;

    TRY(api_exchange(api, "POST", path, body, &text, &status));
    const char *bytes = text.data ? text.data : "";
    json_t *answer = json_loadb(bytes, text.len, JSON_DECODE_ANY, NULL);
    if (status >= 200 && status <= 299 && answer) {
        *ret_answer = answer;
        return NULL;
    }
    char *description = api_answer_description(answer);
    *ret_refusal = description ? description : xasprintf("Unknown error: %s", bytes);
    json_decref(answer);
    return NULL;
}

static int refuse(const char *text)
{
    CLEANUP_FREE char *safe = ctl_harmless(text);

    fprintf(stderr, "%s\n", safe);
    return 1;
}

static int deploy(struct api *api, const struct deploy_args *a, const json_t *body)
{
    CLEANUP_JSON json_t *answer = NULL;
    CLEANUP_FREE char *refusal = NULL;
    struct ctl c = {.args = &(struct ctl_args){.json = a->json}, .api = api};
    struct err *e =
        post(api, a->plan ? "/v1/configuration/_plan" : "/v1/configuration/_compose", body, &answer, &refusal);

    if (!e && refusal)
        return refuse(refusal);
    if (!e && a->plan)
        e = deploy_print_plan(&c, answer);
    if (e)
        return cli_fail(e);
    if (a->plan)
        return 0;
    printf("The cluster configuration has been updated. It may take a short while for changes to take effect, in "
           "particular if Docker images need to be pulled.\n");
    (void)fflush(stdout);
    return a->wait ? deploy_wait(api, a->timeout) : 0;
}

static int usage_error(struct err *e)
{
    CLEANUP_FREE char *safe = ctl_harmless(e->text);

    err_free(e);
    return cli_usage_error(&spec, "%s", safe);
}

static const char *contradiction(const struct deploy_args *a)
{
    if (a->plan && a->wait)
        return "--plan changes nothing, so there is nothing to --wait for.";
    if (a->has_timeout && !a->wait)
        return "--timeout goes with --wait.";
    return a->has_output && !a->plan ? "--output goes with --plan." : NULL;
}

int deploy_main(int argc, char **argv)
{
    struct deploy_args a = {.port = DEFAULT_PORT, .timeout = CTL_WAIT_SECONDS};
    CLEANUP(credentials_done) struct credentials c = {0};
    CLEANUP_JSON json_t *body = NULL;
    struct api *api = NULL;
    int first, status;

    if (!cli_begin(&spec, &a, argc, argv, &first, &status))
        return status;
    if (argc - first != 2 && argc - first != 3)
        return cli_usage_error(&spec, "Wrong number of arguments.");
    if (contradiction(&a))
        return cli_usage_error(&spec, "%s", contradiction(&a));
    a.host = argv[first];
    a.deployment = argc - first == 3 ? argv[first + 1] : NULL;
    a.application = argv[argc - 1];
    struct err *e = deploy_read(&a, &body);
    if (!e)
        e = find_credentials(&a, &c);
    if (e)
        return usage_error(e);
    e = api_open(&(struct api_config){.host = a.host,
                                      .port = (uint16_t)a.port,
                                      .authority = c.authority,
                                      .certificate = c.certificate,
                                      .key = c.key},
                 &api);
    if (e)
        return cli_fail(e);
    status = deploy(api, &a, body);
    api_free(api);
    return status;
}
