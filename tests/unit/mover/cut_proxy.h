/* A TCP proxy on loopback, in threads of the test, that is slow or cuts connections when told. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct cut_proxy;

/* Forwards to 127.0.0.1:port. */
struct cut_proxy *cut_proxy_start(uint16_t port);
struct cut_proxy *cut_proxy_stop(struct cut_proxy *p); /* returns NULL */
uint16_t cut_proxy_port(const struct cut_proxy *p);
/* For connections from now on: after `bytes` in both directions together they are reset (UINT64_MAX
 * = never), and after every 16 KiB comes a pause. Returns at once. */
void cut_proxy_set(struct cut_proxy *p, uint64_t bytes, unsigned pause_us);
/* For connections from now on: after so many TLS records, in both directions together, they are
 * reset, unless cut_proxy_set() is called again. A frame of the mover of less than 16 KiB is one
 * record. */
void cut_proxy_set_records(struct cut_proxy *p, unsigned records);
/* TLS records that the last connection carried so far. */
unsigned cut_proxy_records(struct cut_proxy *p);
/* Bytes that the last connection carried so far. */
uint64_t cut_proxy_carried(struct cut_proxy *p);
/* Connections taken so far. */
unsigned cut_proxy_connections(struct cut_proxy *p);
/* Closes those that are there, within 50 ms. */
void cut_proxy_drop(struct cut_proxy *p);
