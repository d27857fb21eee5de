/* flockerctl fence, unfence, drop-copy: nodes of which an operator says that they are off, and what they kept. */
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/text.h"

static char *when(const json_t *seconds)
{
    if (!json_is_number(seconds))
        return xstrdup("a time that is not known");
    return text_format_time(json_number_value(seconds));
}

/* "DATASET: what becomes of it". */
static void print_item(const json_t *item)
{
    static const struct {
        const char *outcome, *text;
    } fixed[] = {
        {"unwritten", "nothing was ever written to it: it is made anew"},
        {"attach", "its volume is attached to another node; nothing is lost"},
        {"only-there", "NOT FREED: its data are only on this node"},
        {"unknown", "NOT FREED: the store was put back from a copy, and does not know enough of it"},
    };
    const char *outcome = ctl_text(item, "outcome"), *name = ctl_text(item, "name"), *from = ctl_text(item, "node");
    CLEANUP_FREE char *as_of = when(json_object_get(item, "as_of"));
    CLEANUP_FREE char *text = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
        if (streq(outcome, fixed[i].outcome))
            text = xstrdup(fixed[i].text);
    }
    if (streq(outcome, "whole-copy"))
        text = xasprintf("it was just moved, and all of it had arrived on %.8s; nothing is lost", from);
    else if (streq(outcome, "half-move"))
        text = xasprintf("it goes on from what had arrived on %.8s by a move; LOST is what was written after %s", from, as_of);
    else if (streq(outcome, "replica"))
        text = xasprintf("it goes on from the copy that %.8s keeps; LOST is what was written after %s", from, as_of);
    else if (streq(outcome, "asks-node"))
        text = xasprintf("that depends on what %.8s has, which is not connected", from);
    CLEANUP_FREE char *safe = ctl_harmless(name);
    printf("  %.8s %s%s%s\n", ctl_text(item, "dataset_id"), safe, *safe ? ": " : "", text ? text : outcome);
}

static void print_preview(const json_t *preview, const char *begin)
{
    const json_t *datasets = json_object_get(preview, "datasets"), *containers = json_object_get(preview, "containers");
    json_int_t leases = json_integer_value(json_object_get(preview, "leases"));
    size_t i;
    json_t *item;

    if (json_array_size(datasets))
        printf("%s\n", begin);
    json_array_foreach (datasets, i, item)
        print_item(item);
    json_array_foreach (containers, i, item) {
        CLEANUP_FREE char *safe = ctl_harmless(json_string_value(item));
        printf("  container %s: runs again where it is moved\n", safe);
    }
    if (leases)
        printf("  %lld leases of the node end\n", (long long)leases);
    if (!json_array_size(datasets) && !json_array_size(containers) && !leases)
        printf("Nothing is waiting for this node.\n");
}

static struct err *ask_for_word(struct ctl *c, const char *id, const char *path)
{
    CLEANUP_JSON json_t *preview = NULL;

    TRY(api_get(c->api, path, &preview));
    if (json_is_true(json_object_get(preview, "connected")))
        return err_new(ERR_CONFLICT,
                       "node %.8s is connected, so it is not off; 'flockerctl drain %.8s' moves what is on it. If it has just been "
                       "switched off, its session ends within half a minute: try again then",
                       id, id);
    if (c->args->json) {
        ctl_print_json(preview);
    } else {
        print_preview(preview, "Of what this node owns, each dataset that is wanted elsewhere then goes on like this:");
        printf("\n");
    }
    return err_new(ERR_CONFLICT,
                   "nothing was done. A node that is only silent may still write: make sure that %.8s is off and stays off (power, "
                   "hypervisor, storage), then sign that with 'flockerctl fence %.8s --confirm-off'",
                   id, id);
}

static void print_fenced(const char *id, const json_t *answer)
{
    const json_t *fence = json_object_get(answer, "fence");
    CLEANUP_FREE char *since = when(json_object_get(fence, "since"));
    CLEANUP_FREE char *by = ctl_harmless(ctl_text(fence, "by"));

    printf("Node %.8s is fenced since %s, as signed by %s.\n", id, since, *by ? by : "nobody");
    print_preview(answer, "What it owned, and how it goes on elsewhere:");
    printf("Say where: 'flockerctl drain %.8s' moves all of it, 'flockerctl move' and 'move-container' single ones.\n"
           "When the node comes back after a boot, the fence ends by itself, if the control service still knows the boot before; "
           "'flockerctl unfence %.8s' ends it in any case.\n",
           id, id);
}

struct err *ctl_fence(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_JSON json_t *answer = NULL;

    TRY(ctl_find_any_node(c, c->args->operands[0], &id));
    CLEANUP_FREE char *path = api_path("/v1/fences/", id);
    if (!c->args->yes)
        return ask_for_word(c, id, path);
    CLEANUP_JSON json_t *body =
        json_pack("{s:b, s:s}", "confirm_off", 1, "reason", c->args->reason ? c->args->reason : "");
    if (!body)
        return err_new(ERR_INVALID, "--reason must be UTF-8");
    TRY(api_call(c->api, "POST", path, body, &answer));
    if (c->args->json)
        ctl_print_json(answer);
    else
        print_fenced(id, answer);
    return NULL;
}

struct err *ctl_unfence(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL;

    TRY(ctl_find_any_node(c, c->args->operands[0], &id));
    CLEANUP_FREE char *path = api_path("/v1/fences/", id);
    TRY(api_call(c->api, "DELETE", path, NULL, NULL));
    if (c->args->json) {
        CLEANUP_JSON json_t *answer = json_pack("{s:s, s:b}", "uuid", id, "fenced", 0);
        ctl_print_json(answer);
    } else {
        printf("Node %.8s is not fenced; what nobody else got meanwhile is its own again.\n", id);
    }
    return NULL;
}

struct err *ctl_drop_copy(struct ctl *c)
{
    CLEANUP_FREE char *dataset = NULL, *node = NULL;

    TRY(ctl_find_dataset(c, c->args->operands[0], &dataset));
    TRY(ctl_find_any_node(c, c->args->operands[1], &node));
    CLEANUP_FREE char *prefix = api_path("/v1/copies/", dataset);
    CLEANUP_FREE char *path = xasprintf("%s?node=%s", prefix, node);
    CLEANUP_JSON json_t *answer = NULL;
    TRY(api_call(c->api, "DELETE", path, NULL, &answer));
    if (c->args->json)
        ctl_print_json(answer);
    else
        printf("Node %.8s removes what it kept of dataset %s as soon as it is connected.\n", node, dataset);
    return NULL;
}
