/* flocker-ca: the cluster's certificates (contract section 2.4). */
#include "base/random.h"
#include "base/str.h"
#include "cli/ca_x509.h"
#include "base/options.h"
#include "cli/pair_file.h"
#include "cli/programs.h"

#define CERTIFICATE_OPEN_ERROR "Certificate file could not be opened."

enum { OPT_INPUT = 1, OPT_OUTPUT, OPT_DAYS, OPT_KEY_TYPE, OPT_UUID, OPT_NEW_KEY };

/* The options of one run. */
struct ca_options {
    const char *input;
    const char *output;
    const char *uuid;
    enum ca_key_type key_type;
    long days;
    bool new_key;
};

struct ca_command {
    struct cli_spec spec;
    const char *name;
    int min_operands;
    int max_operands; /* -1 = any number */
    const char *operands;
    struct err *(*run)(const struct ca_options *o, int n, char **operands);
};

static struct err *take_option(void *cookie, int id, const char *value)
{
    struct ca_options *o = cookie;

    switch (id) {
    case OPT_INPUT:
    case OPT_OUTPUT:
        if (!*value)
            return err_new(ERR_INVALID, "the name of a directory must not be empty");
        if (id == OPT_INPUT)
            o->input = value;
        else
            o->output = value;
        return NULL;
    case OPT_UUID: {
        struct uuid id_value;
        if (!uuid_parse_v4(value, &id_value))
            return err_new(ERR_INVALID, "'%s' is not a version 4 UUID", value);
        o->uuid = value;
        return NULL;
    }
    case OPT_NEW_KEY:
        o->new_key = true;
        return NULL;
    case OPT_DAYS:
        return cli_parse_number("--days", value, 1, CA_DAYS_MAX, &o->days);
    default:
        if (streq(value, "rsa"))
            o->key_type = CA_KEY_RSA;
        else if (streq(value, "ec"))
            o->key_type = CA_KEY_EC;
        else
            return err_new(ERR_INVALID, "--key-type must be rsa or ec, not '%s'", value);
        return NULL;
    }
}

static struct err *load_authority(const char *directory, unsigned flags, struct ca_authority *ret_authority)
{
    static const char advice[] =
        "Please run `flocker-ca initialize` to generate a new certificate authority.";
    struct pair_files f;
    CLEANUP_FREE char *certificate = NULL;
    CLEANUP_FREE char *key = NULL;

    pair_files_name(&f, directory, "cluster");
    struct err *e = text_file_read(CERTIFICATE_OPEN_ERROR, f.certificate, &certificate);
    if (!e)
        e = text_file_read("Private key file could not be opened.", f.key, &key);
    if (!e)
        e = err_wrap(ca_authority_load(certificate, key, flags, ret_authority), "%s and %s", f.certificate,
                     f.key);
    if (key)
        explicit_bzero(key, strlen(key));
    pair_files_done(&f);
    if (!e)
        return NULL;
    struct err *full =
        err_new(e->code, "Unable to load certificate authority file. %s. %s", e->text, advice);
    err_free(e);
    return full;
}

/* Loads the authority, issues, writes "<output>/<file>.key" and ".crt". */
static struct err *issue(const struct ca_options *o, const char *file, struct ca_request *request)
{
    struct ca_authority authority;
    struct ca_pair pair = {0};
    struct pair_files f;

    TRY(load_authority(o->input, 0, &authority));
    request->key_type = o->key_type;
    request->days = (int)o->days;
    pair_files_name(&f, o->output, file);
    struct err *e = pair_files_check(&f);
    if (!e)
        e = ca_issue(&authority, request, &pair);
    if (!e)
        e = pair_files_write(&f, pair.key, pair.certificate);
    ca_pair_done(&pair);
    pair_files_done(&f);
    ca_authority_done(&authority);
    return e;
}

static struct err *initialize(const struct ca_options *o, int n, char **operands)
{
    struct random random = random_os();
    struct uuid cluster = uuid_random_v4(&random);
    struct ca_pair pair = {0};
    struct pair_files f;

    if (!str_is_utf8(operands[0], strlen(operands[0])) || !*operands[0])
        return err_new(ERR_INVALID, "Invalid cluster name: must be UTF-8 text, not empty");
    pair_files_name(&f, ".", "cluster");
    struct err *e = pair_files_check(&f);
    if (!e)
        e = ca_make_authority(operands[0], &cluster, o->key_type, (int)o->days, &pair);
    if (!e)
        e = pair_files_write(&f, pair.key, pair.certificate);
    ca_pair_done(&pair);
    pair_files_done(&f);
    if (!e)
        printf("Created cluster.key and cluster.crt. Please keep cluster.key secret, as anyone who "
               "can access it will be able to control your cluster.\n");
    return e;
}

static struct err *create_control(const struct ca_options *o, int n, char **operands)
{
    struct ca_request request = {
        .kind = CA_CONTROL,
        .common_name = "control-service",
        .names = operands,
        .n_names = (size_t)n,
    };
    bool is_address;

    for (int i = 0; i < n; i++)
        TRY(ca_check_host(operands[i], &is_address));
    CLEANUP_FREE char *file = xasprintf("control-%s", operands[0]);
    TRY(issue(o, file, &request));
    printf("Created %s.crt and %s.key.\n"
           "Copy both files to /etc/flocker on your control service machine, rename them to\n"
           "control-service.crt and control-service.key, and make sure to chmod 0600 them.\n",
           file, file);
    return NULL;
}

static struct err *create_node(const struct ca_options *o, int n, char **operands)
{
    struct random random = random_os();
    struct uuid node = uuid_random_v4(&random);

    if (o->uuid)
        (void)uuid_parse_v4(o->uuid, &node); /* checked when the option was taken */
    const char *id = UUID_STR(&node);
    CLEANUP_FREE char *common_name = xasprintf("node-%s", id);
    struct ca_request request = {.kind = CA_NODE, .common_name = common_name};
    TRY(issue(o, id, &request));
    printf("Created %s.crt. Copy it over to /etc/flocker/node.crt on your node machine and make "
           "sure to chmod 0600 it.\n",
           id);
    return NULL;
}

static struct err *create_api(const struct ca_options *o, int n, char **operands)
{
    const char *name = operands[0];

    if (!str_is_utf8(name, strlen(name)))
        return err_new(ERR_INVALID, "Invalid username: Could not be converted to UTF-8");
    if (!*name || *name == '.' || strchr(name, '/'))
        return err_new(ERR_INVALID,
                       "Invalid username: '%s' cannot be the name of a file (it is empty, starts "
                       "with '.' or contains '/')",
                       name);
    for (const char *p = name; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return err_new(ERR_INVALID, "Invalid username: it contains a control character");
    }
    CLEANUP_FREE char *common_name = xasprintf("user-%s", name);
    struct ca_request request = {.kind = CA_USER, .common_name = common_name};
    TRY(issue(o, name, &request));
    printf("Created %s.crt. You can now give it to your API enduser so they can access the control "
           "service API.\n",
           name);
    return NULL;
}

/* The certificate's file, and the key's beside it. */
static struct err *name_pair(const char *certificate, struct pair_files *f)
{
    size_t n = strlen(certificate);

    if (n <= strlen(".crt") || !streq(certificate + n - strlen(".crt"), ".crt"))
        return err_new(ERR_INVALID, "%s: name the certificate's file, which ends in .crt", certificate);
    f->certificate = xstrdup(certificate);
    f->key = xasprintf("%.*s.key", (int)(n - strlen(".crt")), certificate);
    return NULL;
}

static struct err *renew_pair(const struct ca_options *o, const struct pair_files *f)
{
    CLEANUP_FREE char *old = NULL;
    struct ca_authority authority;
    struct ca_pair pair = {0};

    TRY(text_file_read(CERTIFICATE_OPEN_ERROR, f->certificate, &old));
    /* One that has expired can still sign itself anew, but no other. */
    bool own = ca_is_authority(old);
    TRY(load_authority(o->input, own ? CA_EXPIRED_OK : 0, &authority));
    struct err *e = err_wrap(ca_renew(&authority, old, o->new_key, (int)o->days, &pair), "%s", f->certificate);
    if (!e)
        e = pair_files_replace(f, pair.key, pair.certificate);
    ca_pair_done(&pair);
    ca_authority_done(&authority);
    if (e)
        return e;
    if (own)
        printf("Renewed %s. Copy it to every machine and user of the cluster, as cluster.crt; their own certificates stay "
               "good.\n",
               f->certificate);
    else
        printf("Renewed %s%s%s. Copy %s to where the old one is; flocker-control and flocker-agent use it at once, without "
               "a restart.\n",
               f->certificate, o->new_key ? " and " : "", o->new_key ? f->key : "",
               o->new_key ? "both" : "it");
    return NULL;
}

static struct err *renew(const struct ca_options *o, int n, char **operands)
{
    struct pair_files f = {0};
    struct err *e = name_pair(operands[0], &f);

    if (!e)
        e = renew_pair(o, &f);
    pair_files_done(&f);
    return e;
}

static struct err *show(const struct ca_options *o, int n, char **operands)
{
    CLEANUP_FREE char *pem = NULL;

    TRY(text_file_read(CERTIFICATE_OPEN_ERROR, operands[0], &pem));
    return err_wrap(ca_describe(pem, stdout), "%s", operands[0]);
}

static const struct cli_option authority_options[] = {
    {OPT_DAYS, 0, "days", "N", "Days until it expires (default: 7300)"},
    {OPT_KEY_TYPE, 0, "key-type", "rsa|ec", "RSA with 4096 bits (default), or EC P-256"},
};

static const struct cli_option issue_options[] = {
    {OPT_INPUT, 'i', "inputpath", "DIR", "Where cluster.crt and cluster.key are (default: .)"},
    {OPT_OUTPUT, 'o', "outputpath", "DIR", "Where to write the new files (default: .)"},
    {OPT_DAYS, 0, "days", "N", "Days until it expires (default: 7300)"},
    {OPT_KEY_TYPE, 0, "key-type", "rsa|ec", "RSA with 4096 bits (default), or EC P-256"},
};

static const struct cli_option node_options[] = {
    {OPT_INPUT, 'i', "inputpath", "DIR", "Where cluster.crt and cluster.key are (default: .)"},
    {OPT_OUTPUT, 'o', "outputpath", "DIR", "Where to write the new files (default: .)"},
    {OPT_DAYS, 0, "days", "N", "Days until it expires (default: 7300)"},
    {OPT_KEY_TYPE, 0, "key-type", "rsa|ec", "RSA with 4096 bits (default), or EC P-256"},
    {OPT_UUID, 0, "uuid", "UUID", "Renew: the node keeps this UUID (default: a new one)"},
};

static const struct cli_option renew_options[] = {
    {OPT_INPUT, 'i', "inputpath", "DIR", "Where cluster.crt and cluster.key are (default: .)"},
    {OPT_DAYS, 0, "days", "N", "Days from now until it expires (default: 7300)"},
    {OPT_NEW_KEY, 0, "new-key", NULL, "Make a new key too (default: the certificate keeps its key)"},
};

#define SPEC(the_synopsis, the_options, the_text)                                                  \
    {                                                                                              \
        .program = "flocker-ca", .synopsis = the_synopsis, .options = the_options,                 \
        .n_options = ARRAY_SIZE(the_options), .text = the_text, .take = take_option                \
    }

static const struct ca_command commands[] = {
    {
        .name = "initialize",
        .spec = SPEC("flocker-ca initialize [options] <name>", authority_options,
                     "Creates a certificate authority for a new cluster of this name:\n"
                     "cluster.key and cluster.crt in the current directory."),
        .min_operands = 1,
        .max_operands = 1,
        .operands = "exactly one argument, the cluster's name",
        .run = initialize,
    },
    {
        .name = "create-control-certificate",
        .spec = SPEC("flocker-ca create-control-certificate [options] <hostname>...", issue_options,
                     "Creates the certificate of the control service, signed by the authority.\n"
                     "Name every host name and IP address under which clients reach it; the files\n"
                     "are named after the first."),
        .min_operands = 1,
        .max_operands = -1,
        .operands = "the control service's host name or address (one or more)",
        .run = create_control,
    },
    {
        .name = "create-node-certificate",
        .spec = SPEC("flocker-ca create-node-certificate [options]", node_options,
                     "Creates the certificate of one node, signed by the authority. The files are\n"
                     "named after the node's new UUID. Never use one certificate on two nodes."),
        .operands = "no arguments",
        .run = create_node,
    },
    {
        .name = "create-api-certificate",
        .spec = SPEC("flocker-ca create-api-certificate [options] <name>", issue_options,
                     "Creates the certificate of an API user, signed by the authority.\n"
                     "The Docker plugin uses the one of a user called plugin."),
        .min_operands = 1,
        .max_operands = 1,
        .operands = "exactly one argument, the user's name",
        .run = create_api,
    },
    {
        .name = "renew",
        .spec = SPEC("flocker-ca renew [options] <file.crt>", renew_options,
                     "Makes a certificate valid anew, also one that has expired, in its place: who it\n"
                     "names, its names, its uses and, unless asked for, its key stay as they are."),
        .min_operands = 1,
        .max_operands = 1,
        .operands = "exactly one argument, the certificate's file",
        .run = renew,
    },
    {
        .name = "show",
        .spec = {.program = "flocker-ca",
                 .synopsis = "flocker-ca show <file>",
                 .text =
                     "Prints what a certificate says: kind, identity, cluster, validity, names,\n"
                     "key and fingerprint.",
                 .take = take_option},
        .min_operands = 1,
        .max_operands = 1,
        .operands = "exactly one argument, the certificate's file",
        .run = show,
    },
};

static const struct cli_spec main_spec = {
    .program = "flocker-ca",
    .synopsis = "flocker-ca <subcommand> [options]",
    .text =
        "Creates and shows the certificates with which the parts of a cluster know each other.\n"
        "\n"
        "Subcommands:\n"
        "  initialize                  Create a certificate authority for a new cluster\n"
        "  create-control-certificate  Create the control service's certificate\n"
        "  create-node-certificate     Create a node's certificate\n"
        "  create-api-certificate      Create an API user's certificate\n"
        "  renew                       Make a certificate valid anew\n"
        "  show                        Print what a certificate says\n"
        "\n"
        "Run flocker-ca <subcommand> --help for command usage and help.",
    .stop_at_operand = true,
    .take = take_option,
};

static int run_command(const struct ca_command *c, int argc, char **argv)
{
    struct ca_options o = {.input = ".", .output = ".", .days = CA_DAYS};
    int first, status;

    if (!cli_begin(&c->spec, &o, argc, argv, &first, &status))
        return status;
    int n = argc - first;
    if (n < c->min_operands || (c->max_operands >= 0 && n > c->max_operands))
        return cli_usage_error(&c->spec, "Wrong number of arguments: %s takes %s.", c->name,
                               c->operands);
    struct err *e = c->run(&o, n, argv + first);
    return e ? cli_fail(e) : 0;
}

int ca_main(int argc, char **argv)
{
    int first, status;

    if (!cli_begin(&main_spec, NULL, argc, argv, &first, &status))
        return status;
    if (first == argc) {
        cli_print_help(&main_spec, stdout);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (streq(commands[i].name, argv[first]))
            return run_command(&commands[i], argc - first, argv + first);
    }
    return cli_usage_error(&main_spec, "Unknown command: %s", argv[first]);
}
