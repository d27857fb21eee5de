#include "base/uuid.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool uuid_parse(const char *text, struct uuid *ret_id)
{
    struct uuid id;
    size_t n = 0;

    if (strlen(text) != UUID_TEXT_SIZE - 1)
        return false;
    for (size_t i = 0; i < UUID_TEXT_SIZE - 1;) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text[i++] != '-')
                return false;
            continue;
        }
        int high = hex_value(text[i]), low = hex_value(text[i + 1]);
        if (high < 0 || low < 0)
            return false;
        id.b[n++] = (uint8_t)(high * 16 + low);
        i += 2;
    }
    *ret_id = id;
    return true;
}

bool uuid_parse_v4(const char *text, struct uuid *ret_id)
{
    struct uuid id;

    if (!uuid_parse(text, &id) || (id.b[6] >> 4) != 4 || (id.b[8] >> 6) != 2)
        return false;
    *ret_id = id;
    return true;
}

char *uuid_format(const struct uuid *id, char buf[UUID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    char *p = buf;

    for (size_t i = 0; i < sizeof(id->b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = digits[id->b[i] >> 4];
        *p++ = digits[id->b[i] & 15];
    }
    *p = '\0';
    return buf;
}

struct uuid uuid_random_v4(const struct random *r)
{
    struct uuid id;
    uint64_t high = random_next(r), low = random_next(r);

    memcpy(id.b, &high, 8);
    memcpy(id.b + 8, &low, 8);
    id.b[6] = (uint8_t)((id.b[6] & 0x0f) | 0x40);
    id.b[8] = (uint8_t)((id.b[8] & 0x3f) | 0x80);
    return id;
}
