/* Bodies of the REST API. The first byte chooses the request: d, u create and change a dataset;
 * c, m create and move a container; l a lease; f a fence; j any JSON; s the rest as a text in JSON.
 * What is accepted can be stored and read back the same, an agent understands the order that comes of
 * it, and what the API then shows of it is accepted again and means the same. */
#include "fuzz.h"

#include "model/json.h"
#include "model/record.h"
#include "model/validate.h"
#include "proto/codec.h"

static json_t *parse_again(const struct str *text)
{
    json_t *v = NULL;

    RULE(!json_parse(text->data, text->len, &v));
    return v;
}

static void check_errors(json_t *errors)
{
    size_t i;
    json_t *text;

    RULE(json_array_size(errors) >= 1 && json_array_size(errors) <= VALIDATE_MAX_ERRORS);
    json_array_foreach (errors, i, text)
        RULE(*json_string_value(text));
    json_decref(errors);
}

static void check_order(const struct control_message *order)
{
    CLEANUP_STR struct str wire = {0};
    CLEANUP_CONTROL_MESSAGE struct control_message read = {.kind = CONTROL_MESSAGE_PING};

    codec_control_encode(order, &wire);
    RULE(wire.len <= CODEC_MAX_MESSAGE && !codec_control_decode(wire.data, wire.len, &read));
}

static void check_dataset(struct dataset *d)
{
    CLEANUP_FREE char *record = NULL, *second = NULL;
    CLEANUP_STR struct str shown = {0};
    struct dataset *stored = NULL, *again = NULL;

    RULE(!d->maximum_size || (d->maximum_size >= DATASET_MIN_SIZE && d->maximum_size % 1024 == 0));
    RULE(d->metadata.n <= METADATA_MAX_ENTRIES);
    if (uuid_is_nil(&d->id)) /* none was given: the API makes one */
        d->id = (struct uuid){{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89}};
    record = record_dataset_encode(d);
    RULE(record && !record_dataset_decode(record, strlen(record), &stored));
    second = record_dataset_encode(stored);
    RULE(second && streq(record, second));
    check_order(&(struct control_message){.kind = CONTROL_MESSAGE_ORDER,
                                          .order = {.dataset = d->id,
                                                    .role = ROLE_OWNER,
                                                    .epoch = 1,
                                                    .maximum_size = d->maximum_size,
                                                    .metadata = d->metadata}});
    json_append_dataset(&shown, stored);
    json_t *v = parse_again(&shown);
    RULE(json_object_del(v, "deleted") == 0 && !validate_dataset_create(v, &again));
    json_decref(v);
    free(second);
    second = record_dataset_encode(again);
    RULE(second && streq(record, second));
    dataset_free(stored);
    dataset_free(again);
    dataset_free(d);
}

/* "Db" and "db" are the same alias, which only the engine refuses (409, not 400). */
static bool has_twin_links(const struct container *c)
{
    for (size_t i = 1; i < c->n_links; i++) {
        if (streq(c->links[i - 1].alias, c->links[i].alias))
            return true;
    }
    return false;
}

/* What is shown of it is accepted and means the same. */
static void check_shown(const struct container *c, const char *record)
{
    CLEANUP_STR struct str shown = {0};
    struct container *again = NULL;
    json_t *v = json_container_configuration(c);

    json_append(&shown, v);
    json_decref(v);
    v = parse_again(&shown);
    json_t *errors = validate_container_create(v, &again);
    json_decref(v);
    json_decref(errors);
    RULE(again || has_twin_links(c));
    if (!again)
        return;
    again->swappiness = c->swappiness; /* never shown */
    CLEANUP_FREE char *second = record_container_encode(again);
    RULE(second && streq(record, second) && container_same_settings(c, again));
    container_free(again);
}

static void check_container(struct container *c)
{
    CLEANUP_FREE char *record = record_container_encode(c), *second = NULL;
    struct container *stored = NULL;

    RULE(record && !record_container_decode(record, strlen(record), &stored));
    second = record_container_encode(stored);
    RULE(second && streq(record, second) && container_same_settings(c, stored));
    check_order(&(struct control_message){.kind = CONTROL_MESSAGE_CONTAINER_ORDER,
                                          .container = {CONTAINER_RUN, c}});
    check_shown(stored, record);
    container_free(stored);
    container_free(c);
}

static void check_lease(const struct lease_request *request)
{
    struct lease l = {.dataset = request->dataset,
                      .node = request->node,
                      .acquired = true,
                      .expires = request->expires,
                      .expires_wall_us = (uint64_t)request->expires_in_us};
    struct lease again;
    CLEANUP_FREE char *record = record_lease_encode(&l);

    RULE(request->expires_in_us <= VALIDATE_MAX_LEASE_US &&
         request->expires_in_us >= -VALIDATE_MAX_LEASE_US);
    RULE(record && !record_lease_decode(record, strlen(record), &again));
    RULE(uuid_eq(&l.dataset, &again.dataset) && uuid_eq(&l.node, &again.node) &&
         l.expires == again.expires);
    CLEANUP_STR struct str shown = {0};
    json_t *v = json_lease(&l, request->expires_in_us);
    json_append(&shown, v);
    json_decref(v);
    json_decref(parse_again(&shown));
}

static void check_body(uint8_t request, const json_t *body)
{
    struct dataset *d = NULL, *update = NULL;
    struct container *c = NULL;
    struct lease_request l;
    struct uuid node;
    bool has_metadata;
    const char *why = "";
    json_t *errors;

    switch (request) {
    case 'd':
        errors = validate_dataset_create(body, &d);
        break;
    case 'u':
        errors = validate_dataset_update(body, &update, &has_metadata);
        dataset_free(update);
        break;
    case 'c':
        errors = validate_container_create(body, &c);
        break;
    case 'm':
        errors = validate_container_update(body, &node);
        break;
    case 'f':
        errors = validate_fence(body, &why);
        RULE(errors || (strlen(why) <= 4 * FENCE_MAX_TEXT && str_is_utf8(why, strlen(why))));
        break;
    default:
        errors = validate_lease(body, &l);
        if (!errors)
            check_lease(&l);
        break;
    }
    if (errors)
        check_errors(errors);
    if (d)
        check_dataset(d);
    if (c)
        check_container(c);
}

static unsigned depth_of(const json_t *v)
{
    unsigned deepest = 0;
    const char *key;
    size_t i;
    json_t *item;

    json_object_foreach ((json_t *)(uintptr_t)v, key, item) {
        unsigned d = depth_of(item);
        deepest = d > deepest ? d : deepest;
    }
    json_array_foreach (v, i, item) {
        unsigned d = depth_of(item);
        deepest = d > deepest ? d : deepest;
    }
    return json_is_object(v) || json_is_array(v) ? deepest + 1 : 0;
}

static void check_json(json_t *v)
{
    CLEANUP_STR struct str text = {0};

    json_append(&text, v);
    json_t *again = parse_again(&text);
    RULE(json_equal(v, again));
    RULE(depth_of(v) <= JSON_MAX_DEPTH);
    json_decref(again);
}

static void check_string(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *plain = fuzz_text(data, size);
    CLEANUP_STR struct str text = {0};
    json_t *v = json_text(plain);

    RULE(json_is_string(v));
    if (str_is_utf8(plain, strlen(plain))) {
        json_append_string(&text, plain);
        json_t *again = parse_again(&text);
        RULE(json_equal(v, again) && streq(json_string_value(again), plain));
        json_decref(again);
    }
    json_decref(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *v = NULL;

    if (!size || !strchr("ducmlfjs", data[0]) || !data[0])
        return -1;
    if (data[0] == 's') {
        check_string(data + 1, size - 1);
        return 0;
    }
    CLEANUP_ERR struct err *e = json_parse((const char *)data + 1, size - 1, &v);
    if (e) {
        RULE(err_is(e, ERR_INVALID) && *e->text && !v);
        return 0;
    }
    if (data[0] == 'j')
        check_json(v);
    else
        check_body(data[0], v);
    json_decref(v);
    return 0;
}
