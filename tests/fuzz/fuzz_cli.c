/* flockerctl: what the control service answers, and what people write. The first byte chooses:
 *   s          an error's status and answer
 *   l, n, p    list, list-nodes, ps; S, W show and why: over the answers in an object, by path. What is printed cannot
 *              command a terminal
 *   J          the same with -o json
 *   e          the stream of events: the same events whatever the pieces
 *   g          has --wait reached its goal?
 *   z, m, h    sizes, metadata, times
 *   w          the width of a text */
#include "fuzz.h"

#include "cli/api_answer.h"
#include "cli/ctl.h"
#include "cli/sse.h"
#include "cli/text.h"

static const json_t *answers; /* by path; what stands in for the control service */

/* In place of api.c's: no network. */
struct err *api_call(struct api *r, const char *method, const char *path, const json_t *body,
                     json_t **ret_answer)
{
    const json_t *answer = json_object_get(answers, path);
    CLEANUP_FREE char *text = answer ? json_dumps(answer, JSON_ENCODE_ANY) : xstrdup("no");
    struct api_answer a = {.peer = "control:1",
                           .method = method,
                           .path = path,
                           .status = answer ? 200 : 404,
                           .text = text,
                           .n = strlen(text)};

    RULE(str_has_prefix(path, "/v1/"));
    return api_answer_read(&a, ret_answer);
}

/* What is shown to people must not be able to command their terminal. */
static void check_shown(const char *text, size_t n)
{
    RULE(!n || str_is_utf8(text, n));
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        RULE(c >= ' ' ? c != 0x7f : c == '\n');
        RULE(c != 0xc2 || (unsigned char)text[i + 1] >= 0xa0); /* C1 */
    }
}

static void check_error(struct err *e)
{
    if (e) {
        CLEANUP_FREE char *text = ctl_harmless(e->text);
        RULE(*text);
        check_shown(text, strlen(text));
    }
    err_free(e);
}

static void status(const uint8_t *data, size_t size)
{
    static const long statuses[] = {200, 201, 400, 404, 405, 409, 412, 500, 503, 302};
    json_t *answer = NULL;
    struct api_answer a = {.peer = "control:1", .method = "GET", .path = "/v1/x"};

    if (!size)
        return;
    a.status = statuses[data[0] % ARRAY_SIZE(statuses)];
    a.text = (const char *)data + 1;
    a.n = size - 1;
    struct err *e = api_answer_read(&a, &answer);
    RULE((e == NULL) == (answer != NULL) && (e == NULL || a.status != 404 || !answer));
    json_decref(answer);
    check_error(e);
}

static struct err *run_command(uint8_t command, struct ctl *c)
{
    switch (command) {
    case 'n':
        return ctl_list_nodes(c);
    case 'p':
        return ctl_ps(c);
    case 'S':
        return ctl_show(c);
    case 'W':
        return ctl_why(c);
    default:
        return ctl_list(c);
    }
}

static void show(uint8_t command, const uint8_t *data, size_t size)
{
    char *operands[] = {(char[]){"db"}, NULL};
    struct ctl_args args = {
        .operands = operands, .n_operands = 1, .json = command == 'J', .details = size & 1, .deleted = size & 2};
    struct ctl c = {.args = &args, .control_service = "control"};
    json_t *all = json_loadb((const char *)data, size, 0, NULL);
    FILE *real = stdout;
    char *text = NULL;
    size_t n = 0;

    if (!all)
        return;
    answers = all;
    stdout = open_memstream(&text, &n);
    RULE(stdout);
    struct err *e = run_command(command == 'J' ? (uint8_t)"lnpSW"[size % 5] : command, &c);
    (void)fclose(stdout);
    stdout = real;
    answers = NULL;
    if (command != 'J')
        check_shown(text, n);
    else if (!e)
        json_decref(json_loadb(text, n, JSON_DECODE_ANY, NULL));
    free(text);
    json_decref(all);
    check_error(e);
}

static void keep_event(void *cookie, const struct sse_event *event)
{
    RULE(*event->event && !strpbrk(event->event, "\r\n") && !strchr(event->data, '\r'));
    str_appendf(cookie, "[%s|%s]", event->event, event->data);
}

static bool read_events(const uint8_t *data, size_t size, const struct random *r, struct str *events, struct str *id)
{
    struct sse s = {.fn = keep_event, .cookie = events};
    bool ok = true;

    for (size_t at = 0; at < size && ok;) {
        size_t piece = r ? fuzz_piece(r, size - at) : size;
        ok = sse_feed(&s, (const char *)data + at, piece);
        at += piece;
    }
    str_append(id, s.id.len ? s.id.data : "");
    sse_done(&s);
    return ok;
}

static void events(const uint8_t *data, size_t size)
{
    uint64_t state = fuzz_hash(data, size);
    struct random r = random_seeded(&state);
    CLEANUP_STR struct str whole = {0}, id = {0};
    CLEANUP_STR struct str pieces = {0}, id2 = {0};

    RULE(read_events(data, size, NULL, &whole, &id) == read_events(data, size, &r, &pieces, &id2));
    RULE(whole.len == pieces.len && (!whole.len || streq(whole.data, pieces.data)) && streq(id.data, id2.data));
}

static void goal(const uint8_t *data, size_t size)
{
    json_t *detail = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);

    for (int g = GOAL_DATASET_AT; g <= GOAL_CONTAINER_GONE; g++) {
        bool reached = false;
        CLEANUP_ERR struct err *e =
            ctl_goal_reached((enum ctl_goal)g, detail, "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f", &reached);
        RULE(!e || (*e->text && !reached));
    }
    json_decref(detail);
}

static void size_text(const char *text)
{
    uint64_t bytes, again;
    struct err *e = text_parse_size(text, &bytes);

    if (e) {
        RULE(err_is(e, ERR_INVALID));
        err_free(e);
        return;
    }
    RULE(bytes <= INT64_MAX);
    CLEANUP_FREE char *plain = xasprintf("%llu", (unsigned long long)bytes);
    if (strlen(plain) <= 18) /* more digits are not taken */
        RULE(!text_parse_size(plain, &again) && again == bytes);
    CLEANUP_FREE char *quota = text_format_quota(bytes);
    CLEANUP_FREE char *shown = text_format_bytes(bytes);
    RULE(*quota && *shown);
}

static void metadata(const char *text)
{
    json_t *first = json_object(), *second = json_object();
    struct err *e = text_parse_metadata(text, first);

    if (e) {
        RULE(err_is(e, ERR_INVALID) && !json_object_size(first));
        err_free(e);
    } else {
        CLEANUP_FREE char *shown = text_format_metadata(first);
        RULE(!text_parse_metadata(shown, second) && json_equal(first, second));
    }
    json_decref(first);
    json_decref(second);
}

static void times(const uint8_t *data, size_t size)
{
    double v = 0;

    memcpy(&v, data, size < sizeof(v) ? size : sizeof(v));
    CLEANUP_FREE char *when = text_format_time(v);
    CLEANUP_FREE char *ago = text_format_duration(v);
    RULE(*when && *ago && strlen(when) <= 20 && strlen(ago) <= 20);
}

static void width(const char *text)
{
    CLEANUP_STR struct str safe = {0};

    RULE(text_width(text) <= 2 * strlen(text));
    text_append_safe(&safe, text);
    check_shown(safe.data ? safe.data : "", safe.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return -1;
    CLEANUP_FREE char *text = fuzz_text(data + 1, size - 1);

    switch (data[0]) {
    case 's':
        status(data + 1, size - 1);
        return 0;
    case 'l':
    case 'n':
    case 'p':
    case 'S':
    case 'W':
    case 'J':
        show(data[0], data + 1, size - 1);
        return 0;
    case 'e':
        events(data + 1, size - 1);
        return 0;
    case 'g':
        goal(data + 1, size - 1);
        return 0;
    case 'z':
        size_text(text);
        return 0;
    case 'm':
        metadata(text);
        return 0;
    case 'h':
        times(data + 1, size - 1);
        return 0;
    case 'w':
        width(text);
        return 0;
    default:
        return -1;
    }
}
