/* Private to the gRPC transport: the parts of the protocol that are bytes in, values out. Pure
 * functions. */
#pragma once

#include "base/str.h"
#include "net/grpc.h"

/* Puts length-prefixed messages together from pieces. Zero-initialised; memory grows with the bytes
 * that have come, not with the length that was announced. */
struct grpc_assembler {
    uint8_t head[5];
    size_t head_n;
    uint8_t *body;
    size_t length; /* announced */
    size_t n;      /* here */
    size_t capacity;
};

enum grpc_assembled {
    GRPC_ASSEMBLED_PART,    /* all bytes taken, no message yet */
    GRPC_ASSEMBLED_MESSAGE, /* body[0..length) is one; call grpc_assembler_next() before feeding on
                             */
    GRPC_ASSEMBLED_COMPRESSED, /* refused: we offered no compression */
    GRPC_ASSEMBLED_TOO_LONG,   /* refused: over the limit */
};

/* Takes from p, n what belongs to the present message. */
enum grpc_assembled grpc_assembler_feed(struct grpc_assembler *a, size_t max, const uint8_t **p,
                                        size_t *n);
void grpc_assembler_next(struct grpc_assembler *a);
static inline bool grpc_assembler_is_empty(const struct grpc_assembler *a)
{
    return a->head_n == 0;
}
static inline void grpc_assembler_done(struct grpc_assembler *a)
{
    grpc_assembler_next(a);
}

/* grpc-message: percent-encoding of all but printable ASCII. */
void grpc_text_encode(const char *text, struct str *out);
/* Never fails: what is not valid stays as it came, then bytes that are not UTF-8 or are control
 * characters become
 * '?'. At most GRPC_MAX_TEXT bytes. The caller frees. */
char *grpc_text_decode(const char *text, size_t n);

/* grpc-timeout: at most 8 digits and a unit. False when malformed. */
bool grpc_timeout_parse(const char *text, size_t n, uint64_t *ret_us);
void grpc_timeout_format(uint64_t us, char buf[16]);

/* "application/grpc", maybe with a +proto suffix or parameters. */
bool grpc_content_type_ok(const char *text, size_t n);
/* 0..16 in decimal; UNKNOWN otherwise. */
enum grpc_status grpc_status_parse(const char *text, size_t n);
enum grpc_status grpc_status_of_http(int http_status);
enum grpc_status grpc_status_of_reset(uint32_t http2_error);
