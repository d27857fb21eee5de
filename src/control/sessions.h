/* Agents' sessions on port 4524: gRPC streams in, engine inputs out, and the engine's orders back. Loop thread. */
#pragma once

#include "core/engine.h"
#include "net/loop.h"

#include <openssl/ssl.h>

struct sessions;

struct sessions_config {
    struct loop *loop;
    struct engine *engine;
    SSL_CTX *tls; /* demands node certificates */
    const char *host;
    uint16_t port; /* 0 = the system picks one */
};

struct err *sessions_new(const struct sessions_config *config, struct sessions **ret) MUST_USE;
struct sessions *sessions_free(struct sessions *s); /* accepts NULL; ends all sessions; returns NULL */
uint16_t sessions_port(const struct sessions *s);
/* Carries out an effect of the kinds EFFECT_WELCOME .. EFFECT_REFUSE, and EFFECT_VOLUME. */
void sessions_effect(struct sessions *s, const struct effect *f);
/* The commands of agents have ids with this bit; their replies belong here. */
#define SESSIONS_COMMAND (UINT64_C(1) << 63)
void sessions_reply(struct sessions *s, uint64_t command, const struct command_result *result);
/* After each batch of effects: tells agents what changed in the catalogue. */
void sessions_tell(struct sessions *s);
