/* Access keys of AWS as they are written down in files and answers. Pure. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define AWS_KEYS_BYTES_MAX (64u << 10) /* of what holds them */

/* Never to be logged or put into an error. */
struct aws_keys {
    char *id, *secret;
    char *token;         /* of a session; NULL: none */
    uint64_t expires_us; /* wall clock; 0: never */
};
/* Overwrites the secrets before it frees them. */
void aws_keys_done(struct aws_keys *k);
#define CLEANUP_AWS_KEYS CLEANUP(aws_keys_done)
void aws_keys_copy(struct aws_keys *to, const struct aws_keys *from); /* `to` is overwritten */
/* false: they cannot be keys (empty, blanks, line breaks, too long). */
bool aws_keys_are_sane(const struct aws_keys *k);

/* What the instance metadata service and the endpoints of containers answer (JSON). ERR_CORRUPT. */
struct err *aws_keys_parse(const char *bytes, size_t n, struct aws_keys *ret_keys) MUST_USE;
/* A section of a shared credentials file: [default], aws_access_key_id = ..., ERR_NOT_FOUND: no such
 * section, or without keys. ERR_INVALID: something is wrong in it; the text names the line, not what stands there. */
struct err *aws_keys_of_profile(const char *text, const char *profile,
                                struct aws_keys *ret_keys) MUST_USE;
/* "2026-01-31T12:00:00Z", fractions of a second are cut. */
bool aws_time_parse(const char *text, uint64_t *ret_wall_us);
/* May keys be asked for there? https anywhere; http only on this machine and at the addresses that AWS
 * uses for it: a wrong variable must not make us send the token, and take keys, over an open network. */
bool aws_container_url_is_safe(const char *url);
