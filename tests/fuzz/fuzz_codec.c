/* The agent link's codec: whatever is accepted must survive another way over the wire unchanged.
 * The first byte of the input chooses the direction. */
#include "fuzz.h"
#include "sample.h"

static void agent(const uint8_t *data, size_t size)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m = {0};
    CLEANUP_AGENT_MESSAGE struct agent_message again = {0};
    CLEANUP_STR struct str first = {0};
    CLEANUP_STR struct str second = {0};
    CLEANUP_ERR struct err *e = codec_agent_decode(data, size, &m);

    if (e) {
        RULE(err_is(e, ERR_CORRUPT) && e->text);
        return;
    }
    codec_agent_encode(&m, &first);
    RULE(!codec_agent_decode(first.data, first.len, &again));
    codec_agent_encode(&again, &second);
    RULE(first.len == second.len && !memcmp(first.data, second.data, first.len));
}

static void control(const uint8_t *data, size_t size)
{
    CLEANUP_CONTROL_MESSAGE struct control_message m = {0};
    CLEANUP_CONTROL_MESSAGE struct control_message again = {0};
    CLEANUP_STR struct str first = {0};
    CLEANUP_STR struct str second = {0};
    CLEANUP_ERR struct err *e = codec_control_decode(data, size, &m);

    if (e) {
        RULE(err_is(e, ERR_CORRUPT) && e->text);
        return;
    }
    codec_control_encode(&m, &first);
    RULE(!codec_control_decode(first.data, first.len, &again));
    codec_control_encode(&again, &second);
    RULE(first.len == second.len && !memcmp(first.data, second.data, first.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    if (data[0] & 1)
        control(data + 1, size - 1);
    else
        agent(data + 1, size - 1);
    return 0;
}

bool fuzz_seed(unsigned i, struct str *out)
{
    if (i < AGENT_MESSAGE_KIND_MAX) {
        CLEANUP_AGENT_MESSAGE struct agent_message m =
            sample_agent_message((enum agent_message_kind)i);
        str_append_bytes(out, "\0", 1);
        codec_agent_encode(&m, out);
        return true;
    }
    i -= AGENT_MESSAGE_KIND_MAX;
    if (i < CONTROL_MESSAGE_KIND_MAX) {
        CLEANUP_CONTROL_MESSAGE struct control_message m =
            sample_control_message((enum control_message_kind)i);
        str_append_bytes(out, "\1", 1);
        codec_control_encode(&m, out);
        return true;
    }
    return false;
}
