/* Bodies about compositions, leases, adoptions and fences. */
#include "base/now.h"
#include "model/compose.h"
#include "model/fence.h"
#include "model/validate_private.h"

/* Compositions */

static void check_part(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_object(v))
        complain(c, "\"%s\" must be an object", where);
}

static void check_spread(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_boolean(v))
        complain(c, "\"%s\" must be true or false", where);
}

json_t *validate_compose(const json_t *body)
{
    /* A Compose file says itself where its services are, or they are spread. */
    bool alone = compose_is_services(json_object_get(body, "applications")) ||
                 json_is_true(json_object_get(body, "spread"));
    const struct field fields[] = {{"applications", true, check_part},
                                   {"deployment", !alone, check_part},
                                   {"spread", false, check_spread}};
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), NULL);
    return c.errors;
}

/* Leases */

static void check_lease_dataset(struct check *c, const char *where, const json_t *v, void *to)
{
    struct uuid *dataset = &((struct lease_request *)to)->dataset;

    if (!json_is_string(v) || !uuid_parse(json_string_value(v), dataset) || uuid_is_nil(dataset))
        complain(c, "\"%s\" must be a UUID, and not the nil one", where);
}

static void check_lease_node(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct lease_request *)to)->node);
}

static void check_expires(struct check *c, const char *where, const json_t *v, void *to)
{
    struct lease_request *l = to;
    double us = json_number_value(v) * USEC_PER_SEC;

    if (!json_is_number(v) && !json_is_null(v)) {
        complain(c, "\"%s\" must be a number of seconds or null", where);
        return;
    }
    l->expires = !json_is_null(v);
    if (us >= (double)VALIDATE_MAX_LEASE_US)
        l->expires_in_us = VALIDATE_MAX_LEASE_US;
    else if (us <= -(double)VALIDATE_MAX_LEASE_US)
        l->expires_in_us = -VALIDATE_MAX_LEASE_US;
    else
        l->expires_in_us = (int64_t)us;
}

json_t *validate_lease(const json_t *body, struct lease_request *ret)
{
    static const struct field fields[] = {
        {"dataset_id", true, check_lease_dataset},
        {"node_uuid", true, check_lease_node},
        {"expires", true, check_expires},
    };
    struct lease_request l = {0};
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &l);
    if (!c.errors)
        *ret = l;
    return c.errors;
}

/* Adoptions */

struct adoption {
    struct uuid node;
    bool anyway;
};

static void check_anyway(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_boolean(v))
        complain(c, "\"%s\" must be true or false", where);
    ((struct adoption *)to)->anyway = json_is_true(v);
}

static void check_adopted_node(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct adoption *)to)->node);
}

json_t *validate_adoption(const json_t *body, bool *ret_anyway)
{
    static const struct field fields[] = {{"anyway", false, check_anyway}};
    struct adoption a = {0};
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &a);
    if (!c.errors)
        *ret_anyway = a.anyway;
    return c.errors;
}

json_t *validate_dataset_adoption(const json_t *body, struct uuid *ret_node, bool *ret_anyway)
{
    static const struct field fields[] = {{"node_uuid", true, check_adopted_node},
                                          {"anyway", false, check_anyway}};
    struct adoption a = {0};
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &a);
    if (!c.errors) {
        *ret_node = a.node;
        *ret_anyway = a.anyway;
    }
    return c.errors;
}

/* Fences */

static void check_confirmed(struct check *c, const char *where, const json_t *v, void *to)
{
    (void)to;
    if (!json_is_true(v))
        complain(c, "\"%s\" must be true: whoever asks for a fence signs that the node is off", where);
}

static void check_why(struct check *c, const char *where, const json_t *v, void *to)
{
    if (!json_is_string(v) || characters(json_string_value(v)) > FENCE_MAX_TEXT)
        complain(c, "\"%s\" must be a text of at most %d characters", where, FENCE_MAX_TEXT);
    else
        *(const char **)to = json_string_value(v);
}

json_t *validate_fence(const json_t *body, const char **ret_why)
{
    static const struct field fields[] = {{"confirm_off", true, check_confirmed}, {"reason", false, check_why}};
    const char *why = "";
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), &why);
    if (!c.errors)
        *ret_why = why;
    return c.errors;
}
