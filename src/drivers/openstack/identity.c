#include "drivers/openstack/identity.h"

#include "base/str.h"

#define RACKSPACE_URL "https://identity.api.rackspacecloud.com/v2.0"
#define DEFAULT_DOMAIN "default"
#define URL_MAX 1024u

void os_identity_done(struct os_identity *i)
{
    free(i->url);
    *i = (struct os_identity){0};
}

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static const char *either(const json_t *o, const char *key, const char *other)
{
    const char *v = text(o, key);

    return v ? v : text(o, other);
}

/* ---- what the options mean ---- */

static const struct {
    const char *name;
    enum os_auth how;
} plugins[] = {
    {"password", OS_AUTH_V3_PASSWORD}, /* v2 when auth_url says so */
    {"v3password", OS_AUTH_V3_PASSWORD},
    {"v2password", OS_AUTH_V2_PASSWORD},
    {"token", OS_AUTH_V3_TOKEN},
    {"v3token", OS_AUTH_V3_TOKEN},
    {"v2token", OS_AUTH_V2_TOKEN},
    {"v3applicationcredential", OS_AUTH_V3_APPLICATION_CREDENTIAL},
    {"rackspace", OS_AUTH_RACKSPACE},
    {"none", OS_AUTH_NONE},
    {"noauth", OS_AUTH_NONE},
};

static struct err *find_plugin(const char *name, enum os_auth *ret_how)
{
    CLEANUP_STR struct str known = {0};

    for (size_t i = 0; i < ARRAY_SIZE(plugins); i++) {
        if (streq(plugins[i].name, name)) {
            *ret_how = plugins[i].how;
            return NULL;
        }
        str_appendf(&known, "%s%s", i ? ", " : "", plugins[i].name);
    }
    return err_new(ERR_INVALID, "Configuration error: there is no auth_plugin '%s' (there are: %s)",
                   name, known.data);
}

static struct err *missing(const char *key, const char *plugin)
{
    return err_new(ERR_INVALID,
                   "Configuration error: Required key %s is missing (auth_plugin %s needs it).",
                   key, plugin);
}

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t k = strlen(end);

    return n >= k && !strncmp(s + n - k, end, k);
}

/* auth_url may or may not name the version. */
static struct err *make_url(const char *url, bool generic, struct os_identity *i)
{
    bool two;
    size_t n = strlen(url);

    if ((!str_has_prefix(url, "http://") && !str_has_prefix(url, "https://")) || n > URL_MAX ||
        strpbrk(url, " \r\n@"))
        return err_new(ERR_INVALID,
                       "Configuration error: auth_url must be an address that begins with https:// "
                       "or http://.");
    while (n && url[n - 1] == '/')
        n--;
    if (ends_with(url, n, "/tokens"))
        n -= strlen("/tokens");
    two = ends_with(url, n, "/v2.0");
    if (generic && two && i->how != OS_AUTH_RACKSPACE)
        i->how = i->how == OS_AUTH_V3_TOKEN ? OS_AUTH_V2_TOKEN : OS_AUTH_V2_PASSWORD;
    if (i->how == OS_AUTH_V2_PASSWORD || i->how == OS_AUTH_V2_TOKEN || i->how == OS_AUTH_RACKSPACE)
        i->url = xasprintf("%.*s%s/tokens", (int)n, url, two ? "" : "/v2.0");
    else
        i->url =
            xasprintf("%.*s%s/auth/tokens", (int)n, url, ends_with(url, n, "/v3") ? "" : "/v3");
    return NULL;
}

static void take_texts(const json_t *o, struct os_identity *i)
{
    const char *name = text(o, "default_domain_name"), *id = text(o, "default_domain_id");

    i->username = text(o, "username");
    i->user_id = text(o, "user_id");
    i->password = text(o, "password");
    i->api_key = text(o, "api_key");
    i->token = text(o, "token");
    i->project_name = either(o, "project_name", "tenant_name");
    i->project_id = either(o, "project_id", "tenant_id");
    i->credential_name = text(o, "application_credential_name");
    i->credential_id = text(o, "application_credential_id");
    i->credential_secret = text(o, "application_credential_secret");
    i->user_domain_name = text(o, "user_domain_name");
    i->user_domain_id = text(o, "user_domain_id");
    i->project_domain_name = text(o, "project_domain_name");
    i->project_domain_id = text(o, "project_domain_id");
    if (!name && !id)
        id = DEFAULT_DOMAIN;
    if (!i->user_domain_name && !i->user_domain_id) {
        i->user_domain_name = name;
        i->user_domain_id = name ? NULL : id;
    }
    if (!i->project_domain_name && !i->project_domain_id) {
        i->project_domain_name = name;
        i->project_domain_id = name ? NULL : id;
    }
}

/* The first that is missing, or NULL. */
static const char *find_missing(const struct os_identity *i)
{
    bool user = i->username || i->user_id, project = i->project_name || i->project_id;

    switch (i->how) {
    case OS_AUTH_RACKSPACE:
        return !i->username ? "username" : !i->api_key ? "api_key" : NULL;
    case OS_AUTH_V2_PASSWORD:
    case OS_AUTH_V3_PASSWORD:
        return !user ? "username" : !i->password ? "password" : !project ? "project_name" : NULL;
    case OS_AUTH_V2_TOKEN:
    case OS_AUTH_V3_TOKEN:
        return !i->token ? "token" : !project ? "project_name" : NULL;
    case OS_AUTH_V3_APPLICATION_CREDENTIAL:
        if (!i->credential_id && (!i->credential_name || !user))
            return "application_credential_id";
        return !i->credential_secret ? "application_credential_secret" : NULL;
    case OS_AUTH_NONE:
        return !i->project_id ? "project_id" : NULL;
    }
    return NULL;
}

static struct err *read_identity(const json_t *options, struct os_identity *i)
{
    const char *plugin = text(options, "auth_plugin"), *url = text(options, "auth_url"), *lacks;

    if (!plugin) /* as others guess it from clouds.yaml */
        plugin =
            text(options, "application_credential_secret") ? "v3applicationcredential" : "password";
    TRY(find_plugin(plugin, &i->how));
    take_texts(options, i);
    if (!url && i->how == OS_AUTH_RACKSPACE)
        url = RACKSPACE_URL;
    if (!url && i->how != OS_AUTH_NONE)
        return missing("auth_url", plugin);
    if (i->how != OS_AUTH_NONE)
        TRY(make_url(url, streq(plugin, "password") || streq(plugin, "token"), i));
    lacks = find_missing(i);
    return lacks ? missing(lacks, plugin) : NULL;
}

struct err *os_identity_read(const json_t *options, struct os_identity *ret_identity)
{
    struct os_identity i = {0};
    struct err *e = read_identity(options, &i);

    if (e) {
        os_identity_done(&i);
        return e;
    }
    *ret_identity = i;
    return NULL;
}

/* ---- the request ---- */

static void put(json_t *o, const char *key, const char *value)
{
    if (value)
        (void)json_object_set_new(o, key, json_string(value));
}

static json_t *with_domain(const char *name, const char *id)
{
    json_t *domain = json_object();

    put(domain, id ? "id" : "name", id ? id : name);
    return domain;
}

static json_t *user_v3(const struct os_identity *i)
{
    json_t *user = json_object();

    if (i->user_id) {
        put(user, "id", i->user_id);
        return user;
    }
    put(user, "name", i->username);
    (void)json_object_set_new(user, "domain", with_domain(i->user_domain_name, i->user_domain_id));
    return user;
}

static json_t *scope_v3(const struct os_identity *i)
{
    json_t *project = json_object();

    if (i->project_id) {
        put(project, "id", i->project_id);
    } else {
        put(project, "name", i->project_name);
        (void)json_object_set_new(project, "domain",
                                  with_domain(i->project_domain_name, i->project_domain_id));
    }
    return json_pack("{s:o}", "project", project);
}

static json_t *request_v3(const char *method, json_t *how, json_t *scope)
{
    json_t *auth = json_pack("{s:{s:[s], s:o}}", "identity", "methods", method, method, how);

    if (scope)
        (void)json_object_set_new(auth, "scope", scope);
    return json_pack("{s:o}", "auth", auth);
}

static json_t *password_v3(const struct os_identity *i)
{
    json_t *user = user_v3(i);

    put(user, "password", i->password);
    return request_v3("password", json_pack("{s:o}", "user", user), scope_v3(i));
}

static json_t *application_credential(const struct os_identity *i)
{
    json_t *how = json_object();

    put(how, "secret", i->credential_secret);
    if (i->credential_id) {
        put(how, "id", i->credential_id);
    } else {
        put(how, "name", i->credential_name);
        (void)json_object_set_new(how, "user", user_v3(i));
    }
    return request_v3("application_credential", how, NULL); /* it has its project */
}

static json_t *request_v2(const char *key, json_t *how, const struct os_identity *i)
{
    json_t *auth = json_pack("{s:o}", key, how);

    if (i->project_id)
        put(auth, "tenantId", i->project_id);
    else
        put(auth, "tenantName", i->project_name);
    return json_pack("{s:o}", "auth", auth);
}

json_t *os_identity_request(const struct os_identity *i)
{
    switch (i->how) {
    case OS_AUTH_V3_PASSWORD:
        return password_v3(i);
    case OS_AUTH_V3_TOKEN:
        return request_v3("token", json_pack("{s:s}", "id", i->token), scope_v3(i));
    case OS_AUTH_V3_APPLICATION_CREDENTIAL:
        return application_credential(i);
    case OS_AUTH_V2_PASSWORD:
        return request_v2("passwordCredentials",
                          json_pack("{s:s, s:s}", i->user_id ? "userId" : "username",
                                    i->user_id ? i->user_id : i->username, "password", i->password),
                          i);
    case OS_AUTH_V2_TOKEN:
        return request_v2("token", json_pack("{s:s}", "id", i->token), i);
    case OS_AUTH_RACKSPACE:
        return request_v2("RAX-KSKEY:apiKeyCredentials",
                          json_pack("{s:s, s:s}", "username", i->username, "apiKey", i->api_key),
                          i);
    case OS_AUTH_NONE:
        break;
    }
    return NULL;
}

/* ---- clouds.yaml ---- */

static struct err *apply_one(json_t *options, const char *key, const json_t *value,
                             const char *cloud, const char *said)
{
    if (!value || json_is_null(value) || json_object_get(options, key))
        return NULL;
    if (json_is_integer(value)) { /* a password of digits, say: YAML does not know better */
        char digits[24];

        (void)snprintf(digits, sizeof(digits), "%lld", (long long)json_integer_value(value));
        (void)json_object_set_new(options, key, json_string(digits));
        return NULL;
    }
    if (!json_is_string(value) && !json_is_boolean(value))
        return err_new(ERR_INVALID, "clouds.yaml: %s of cloud %s must be a text", said, cloud);
    (void)json_object_set(options, key, (json_t *)value);
    return NULL;
}

struct err *os_cloud_apply(const json_t *clouds, const char *name, json_t *options)
{
    static const char *const auth_keys[] = {"auth_url",
                                            "username",
                                            "user_id",
                                            "password",
                                            "token",
                                            "api_key",
                                            "tenant_name",
                                            "tenant_id",
                                            "project_name",
                                            "project_id",
                                            "user_domain_name",
                                            "user_domain_id",
                                            "project_domain_name",
                                            "project_domain_id",
                                            "default_domain_name",
                                            "default_domain_id",
                                            "application_credential_id",
                                            "application_credential_name",
                                            "application_credential_secret"};
    static const char *const others[][2] = {{"region_name", "region"},
                                            {"interface", "interface"},
                                            {"cacert", "verify_ca_path"},
                                            {"verify", "verify_peer"},
                                            {"auth_type", "auth_plugin"},
                                            {"block_storage_endpoint_override", "volume_endpoint"},
                                            {"compute_endpoint_override", "compute_endpoint"}};
    const json_t *cloud = json_object_get(json_object_get(clouds, "clouds"), name);
    const json_t *auth = json_object_get(cloud, "auth");

    if (!json_is_object(cloud))
        return err_new(ERR_NOT_FOUND, "clouds.yaml: there is no cloud '%s'", name);
    for (size_t i = 0; i < ARRAY_SIZE(auth_keys); i++)
        TRY(apply_one(options, auth_keys[i], json_object_get(auth, auth_keys[i]), name,
                      auth_keys[i]));
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        TRY(apply_one(options, others[i][1], json_object_get(cloud, others[i][0]), name,
                      others[i][0]));
    return NULL;
}
