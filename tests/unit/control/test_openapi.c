/* The OpenAPI document and the code say the same: routes, methods, names, and the errors of each. */
#include "control/rest_internal.h"
#include "rest_bench.h"

/* What any route may answer with, and what stands for requests without a route. */
static const enum rest_error general[] = {REST_ERROR_HTTP_SYNTAX, REST_ERROR_HTTP_TOO_LARGE,
                                          REST_ERROR_HTTP_BUSY};
static const enum rest_error unrouted[] = {REST_ERROR_NO_ROUTE, REST_ERROR_METHOD};

static json_t *document(void)
{
    json_t *v = json_loadb(openapi_json, openapi_json_len, JSON_REJECT_DUPLICATES, NULL);

    assert_non_null(v);
    return v;
}

/* "/v1/state/datasets/" from "/v1/state/datasets/{dataset_id}". */
static char *path_of(const char *template)
{
    const char *brace = strchr(template, '{');

    return brace ? xstrndup(template, (size_t)(brace - template)) : xstrdup(template);
}

static const struct route *find_route(const char *template, const char *method)
{
    CLEANUP_FREE char *path = path_of(template);

    for (size_t i = 0; i < rest_n_routes; i++) {
        if (streq(rest_routes[i].path, path) &&
            strcasecmp(http_method_name(rest_routes[i].method), method) == 0)
            return &rest_routes[i];
    }
    fail_msg("%s %s is in the document, but not in the table of routes", method, template);
    return NULL;
}

static enum rest_error find_error(const char *name)
{
    for (size_t i = 0; i < REST_ERROR_MAX; i++) {
        if (streq(rest_errors[i].name, name))
            return (enum rest_error)i;
    }
    fail_msg("the error %s is in the document, but not in the table of errors", name);
    return REST_ERROR_MAX;
}

/* The errors that the document names for an operation: the examples of its answers. */
static uint64_t documented_errors(json_t *operation)
{
    const char *status, *name;
    json_t *answer, *example;
    uint64_t found = 0;

    json_object_foreach (json_object_get(operation, "responses"), status, answer) {
        json_t *content = json_object_get(json_object_get(answer, "content"), "application/json");
        json_object_foreach (json_object_get(content, "examples"), name, example) {
            enum rest_error error = find_error(name);
            CLEANUP_FREE char *ref = xasprintf("#/components/examples/%s", name);
            assert_string_equal(json_string_value(json_object_get(example, "$ref")), ref);
            assert_int_equal(strtoul(status, NULL, 10), rest_errors[error].status);
            found |= UINT64_C(1) << error;
        }
    }
    return found;
}

static void compare_operation(const char *template, const char *method, json_t *operation)
{
    const struct route *route = find_route(template, method);
    uint64_t declared = 0, told = documented_errors(operation);

    if (!route)
        return;
    declared = route->errors;
    for (size_t i = 0; i < ARRAY_SIZE(general); i++)
        declared |= UINT64_C(1) << general[i];
    assert_string_equal(json_string_value(json_object_get(operation, "operationId")), route->name);
    for (size_t i = 0; i < REST_ERROR_MAX; i++) {
        if ((declared ^ told) >> i & 1)
            fail_msg("%s: the error %s is %s", route->name, rest_errors[i].name,
                     told >> i & 1 ? "documented, but not declared"
                                   : "declared, but not documented");
    }
}

static void test_routes(void **state)
{
    json_t *v = document(), *path, *operation;
    const char *template, *method;
    size_t n = 0;

    json_object_foreach (json_object_get(v, "paths"), template, path) {
        json_object_foreach (path, method, operation) {
            if (streq(method, "parameters"))
                continue;
            compare_operation(template, method, operation);
            n++;
        }
    }
    assert_int_equal(n, rest_n_routes); /* none is missing: all are different */
    json_decref(v);
}

/* The text of the document is that of the code, up to what varies. */
static void test_errors(void **state)
{
    json_t *v = document();
    json_t *examples = json_object_get(json_object_get(v, "components"), "examples");
    json_t *responses = json_object_get(json_object_get(v, "components"), "responses");

    for (size_t i = 0; i < REST_ERROR_MAX; i++) {
        json_t *example = json_object_get(examples, rest_errors[i].name);
        const char *text =
            json_string_value(json_object_get(json_object_get(example, "value"), "description"));
        size_t same = strcspn(rest_errors[i].text, "%");
        if (!text || strncmp(text, rest_errors[i].text, same) != 0 ||
            (!rest_errors[i].text[same] && text[same]))
            fail_msg("%s: \"%s\" in the document, \"%s\" in the code", rest_errors[i].name,
                     text ? text : "nothing", rest_errors[i].text);
    }
    assert_int_equal(json_object_size(examples), REST_ERROR_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(unrouted); i++)
        assert_non_null(json_object_get(responses, rest_errors[unrouted[i]].name));
    json_decref(v);
}

static void test_served(void **state)
{
    struct bench *b = *state;
    struct client c;

    client_request(&c, b, "GET", "/v1/openapi.json", "", "");
    client_wait(&c, NULL);
    assert_int_equal(status_of(&c), 200);
    json_t *served = json_loads(body_of(&c), 0, NULL), *made = document();
    assert_true(json_equal(served, made));
    json_decref(served);
    json_decref(made);
    client_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_errors),
        TEST(test_served),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
