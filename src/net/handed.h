/* Listening sockets that systemd made and hands over (sd_listen_fds(3)): they are there before the program is, and while it restarts. */
#pragma once

/* The first one of this family (AF_UNIX, AF_INET6, ...) that was handed to this process and is not taken yet; close-on-exec and
 * non-blocking; the caller owns it. -1: there is none. At start-up, one thread. */
int handed_socket(int family);
