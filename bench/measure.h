/* Shared by the programs of the benchmarks: latencies, and names that all of them make up alike. */
#pragma once

#include "base/options.h"
#include "base/uuid.h"

#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>

#define NSEC_PER_SEC 1000000000u
#define LOOPBACK "127.0.0.1"

uint64_t measure_now_ns(void); /* CLOCK_MONOTONIC: comparable between processes of one machine */

/* Every latency that was measured. Zero-initialised. */
struct latencies {
    uint64_t *ns;
    size_t n, cap;
};

void latencies_add(struct latencies *l, uint64_t ns);
/* In milliseconds; `share` 0.5 is the median, 1 the largest; 0 when there is none. Sorts. */
double latencies_ms(struct latencies *l, double share);
/* `"NAME_p50_ms":..., "NAME_p99_ms":..., "NAME_max_ms":...` (without NAME_ when `name` is ""). */
void latencies_print(struct latencies *l, const char *name, FILE *to);
void latencies_done(struct latencies *l);

/* The n-th node and the n-th dataset of a cluster that is made up: spread like random ids, the same in each run. */
struct uuid measure_node(uint64_t n);
struct uuid measure_dataset(uint64_t n);

/* What a program of the benchmarks does: takes its options into `options`, then calls `run` with them and with the one
 * operand, NULL when there is none or more than one. Returns the exit status. */
int measure_main(const struct cli_spec *spec, void *options, int argc, char **argv,
                 struct err *(*run)(void *options, const char *operand));

/* A context that serves users as the control service does, with control-service.crt of the directory. */
struct err *measure_server(const char *certificates, SSL_CTX **ret_ctx) MUST_USE;
/* A context that connects to the control service (or a peer with its certificate) as NAME.crt of the directory. */
struct err *measure_client(const char *certificates, const char *name, unsigned tls_flags, SSL_CTX **ret_ctx) MUST_USE;
