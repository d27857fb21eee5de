#include "base/crc32c.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#define POLYNOMIAL 0x82f63b78u

/* tables[k][b]: what byte b does to the sum when k more bytes follow. */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;

        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        tables[0][b] = crc;
    }
    for (size_t k = 1; k < 8; k++) {
        for (size_t b = 0; b < 256; b++)
            tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 255];
    }
}

static uint64_t load(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

uint32_t crc32c_tables(uint32_t crc, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;

    (void)pthread_once(&tables_once, make_tables);
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = load(p) ^ crc;

        crc = 0;
        for (unsigned k = 0; k < 8; k++)
            crc ^= tables[7 - k][v >> 8 * k & 255];
    }
    while (n--)
        crc = crc >> 8 ^ tables[0][(crc ^ *p++) & 255];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse(uint32_t crc, const uint8_t *p, size_t n)
{
    uint64_t sum = crc;

    for (; n >= 8; p += 8, n -= 8)
        sum = _mm_crc32_u64(sum, load(p));
    crc = (uint32_t)sum;
    while (n--)
        crc = _mm_crc32_u8(crc, *p++);
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse(crc, bytes, n);
#endif
    return crc32c_tables(crc, bytes, n);
}
