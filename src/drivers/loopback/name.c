#include "drivers/loopback/name.h"

#include "base/str.h"
#include "drivers/driver.h"

#include <inttypes.h>

char *loopback_name(const struct uuid *dataset, uint64_t size)
{
    return xasprintf(LOOPBACK_PREFIX "%s_%" PRIu64, UUID_STR(dataset), size);
}

bool loopback_name_parse(const char *name, struct uuid *ret_dataset, uint64_t *ret_size)
{
    char text[UUID_TEXT_SIZE];
    size_t head = strlen(LOOPBACK_PREFIX) + UUID_TEXT_SIZE - 1;
    struct uuid id;

    if (!str_has_prefix(name, LOOPBACK_PREFIX) || strlen(name) < head + 2 || name[head] != '_' ||
        strspn(name + head + 1, "0123456789") != strlen(name + head + 1))
        return false;
    memcpy(text, name + strlen(LOOPBACK_PREFIX), UUID_TEXT_SIZE - 1);
    text[UUID_TEXT_SIZE - 1] = '\0';
    if (!uuid_parse(text, &id) || !driver_size_parse(name + head + 1, ret_size))
        return false;
    *ret_dataset = id;
    return true;
}
