#include "drivers/powerflex/name.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define DIGITS 22u /* of 6 bits each: 128 bits, and 4 that are 0 */
#define CLUSTER_DIGITS 8u

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+_";

static void encode(const struct uuid *u, char ret[DIGITS])
{
    unsigned held = 0, bits = 0;

    for (size_t i = 0, n = 0; n < DIGITS; n++) {
        if (bits < 6) {
            held = held << 8 | (i < sizeof(u->b) ? u->b[i++] : 0u);
            bits += 8;
        }
        bits -= 6;
        ret[n] = alphabet[held >> bits & 63];
    }
}

const char *pfx_name_make(const struct uuid *cluster, const struct uuid *dataset,
                          char ret[PFX_NAME_SIZE])
{
    char text[UUID_TEXT_SIZE];

    ret[0] = 'f';
    encode(dataset, ret + 1);
    memcpy(ret + 1 + DIGITS, uuid_format(cluster, text), CLUSTER_DIGITS);
    ret[1 + DIGITS + CLUSTER_DIGITS] = '\0';
    return ret;
}

static bool decode(const char *digits, struct uuid *ret)
{
    unsigned held = 0, bits = 0;
    size_t n = 0;

    for (size_t i = 0; i < DIGITS; i++) {
        const char *at = memchr(alphabet, digits[i], sizeof(alphabet) - 1);

        if (!at)
            return false;
        held = held << 6 | (unsigned)(at - alphabet);
        bits += 6;
        if (bits >= 8 && n < sizeof(ret->b)) {
            bits -= 8;
            ret->b[n++] = (uint8_t)(held >> bits);
        }
    }
    return n == sizeof(ret->b);
}

bool pfx_name_parse(const char *name, const struct uuid *cluster, struct uuid *ret_dataset)
{
    char again[PFX_NAME_SIZE];
    struct uuid u;

    if (strlen(name) != PFX_NAME_SIZE - 1 || *name != 'f' || !decode(name + 1, &u))
        return false;
    /* Written again it must be the same: the cluster's digits, and no bit too many. */
    if (strcmp(pfx_name_make(cluster, &u, again), name) != 0)
        return false;
    *ret_dataset = u;
    return true;
}
