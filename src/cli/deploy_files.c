/* The files that flocker-deploy is given, as the body that it posts. */
#include "cli/deploy.h"

#include "cli/deploy_compose.h"
#include "cli/pair_file.h"
#include "model/compose.h"
#include "model/yaml_json.h"

#include <unistd.h>

/* The control service takes 4 MiB; a file that says much with anchors and aliases may become large. */
static const struct yaml_limits limits = {.bytes = TEXT_FILE_MAX, .values = 100000};

static struct err *check_exists(const char *path)
{
    if (access(path, F_OK) < 0)
        return err_new(ERR_NOT_FOUND, "No file exists at %s", path);
    return NULL;
}

static struct err *read_yaml(const char *what, const char *path, json_t **ret_value)
{
    CLEANUP_FREE char *text = NULL;
    CLEANUP_FREE char *sentence = xasprintf("%s configuration cannot be read.", what);

    TRY(text_file_read(sentence, path, &text));
    struct err *e = yaml_load_within(&limits, text, strlen(text), ret_value);
    if (!e)
        return NULL;
    struct err *said = err_new(ERR_INVALID, "%s configuration at %s could not be parsed as YAML:\n\n%s", what, path, e->text);
    err_free(e);
    return said;
}

static struct err *check_alone(const struct deploy_args *a, bool compose)
{
    if (a->deployment || a->spread || compose)
        return NULL;
    return err_new(ERR_INVALID,
                   "Deployment configuration is missing: %s is no Compose file, so a second file must say which application "
                   "runs where; or use --spread.",
                   a->application);
}

struct err *deploy_read(const struct deploy_args *a, json_t **ret_body)
{
    CLEANUP_JSON json_t *deployment = NULL, *applications = NULL;

    if (a->deployment)
        TRY(check_exists(a->deployment));
    TRY(check_exists(a->application));
    if (a->deployment)
        TRY(read_yaml("Deployment", a->deployment, &deployment));
    TRY(read_yaml("Application", a->application, &applications));
    bool compose = compose_is_services(applications);
    TRY(check_alone(a, compose));
    if (compose)
        TRY(deploy_compose_settle(applications, a->application, a->project));
    else if (a->project)
        return err_new(ERR_INVALID, "--project is for Compose files, and %s is none", a->application);
    *ret_body = json_pack("{s:O}", "applications", applications);
    if (deployment)
        (void)json_object_set(*ret_body, "deployment", deployment);
    if (a->spread)
        (void)json_object_set_new(*ret_body, "spread", json_true());
    return NULL;
}
