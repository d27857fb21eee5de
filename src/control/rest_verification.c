/* /v1/verification: comparing a replica with what its owner has, when somebody asks for it. */
#include "control/rest_internal.h"

static json_t *seconds_or_null(uint64_t us)
{
    return us ? json_real((double)us / USEC_PER_SEC) : json_null();
}

json_t *verification_value(const struct rest *rest, const struct uuid *dataset)
{
    static const char *const results[COMPARISON_END_MAX] = {
        [COMPARISON_RUNS] = "running",
        [COMPARISON_EQUAL] = "equal",
        [COMPARISON_DIFFERS] = "differs",
        [COMPARISON_FAILED] = "failed",
    };
    const struct comparison *c = engine_comparison(rest->config.engine, dataset);

    if (!c)
        return json_null();
    return json_pack("{s:I, s:o, s:o, s:s, s:o, s:o, s:s, s:o}", "id", (json_int_t)c->number, "owner", json_uuid(&c->owner),
                     "node", json_uuid(&c->node), "snapshot", c->snapshot, "asked", seconds_or_null(c->asked_us), "ended",
                     seconds_or_null(c->ended_us), "result", results[c->end], "text",
                     c->text ? json_text(c->text) : json_null());
}

void verification_of_dataset(struct rest *rest, struct http_request *r, const char *param)
{
    struct command c = {.kind = COMMAND_REPLICA_VERIFY};

    if (parse_id(param, &c.dataset_id))
        submit(rest, r, &c);
    else
        respond_error(r, REST_ERROR_DATASET_NOT_FOUND);
}
