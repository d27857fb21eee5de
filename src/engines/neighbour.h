/* The kernel's table of neighbours (ARP, NDP). */
#pragma once

#include "base/err.h"

/* Forgets what the kernel holds of this address while nobody has answered for it (states INCOMPLETE and FAILED), on
 * whatever interface. A client that tries to reach a container before it is up makes the kernel ask for its address in
 * vain, and then it asks again only after a second; once forgotten, it asks at the client's next try. Entries that
 * are in use are not touched. `address`: IPv4 or IPv6 as text; ERR_INVALID otherwise. Blocks shortly. Thread-safe. */
struct err *neighbour_forget_unanswered_sync(const char *address) MUST_USE;
