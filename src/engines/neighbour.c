#include "engines/neighbour.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define REPLY_BYTES 32768
#define ENTRIES_MAX 16 /* of one address: one an interface that asked for it */
#define REPLY_TIMEOUT_S 2

struct target {
    unsigned char family;
    unsigned char bytes[16];
    size_t n;
};

struct entry_request {
    struct nlmsghdr header;
    struct ndmsg entry;
    struct rtattr attribute;
    unsigned char address[16];
};

static struct err *parse_address(const char *text, struct target *ret)
{
    struct target t = {.family = AF_INET, .n = 4};

    if (inet_pton(AF_INET, text, t.bytes) != 1) {
        t = (struct target){.family = AF_INET6, .n = 16};
        if (inet_pton(AF_INET6, text, t.bytes) != 1)
            return err_new(ERR_INVALID, "'%s' is not an address", text);
    }
    *ret = t;
    return NULL;
}

static struct err *open_netlink(int *ret_fd)
{
    CLEANUP_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct timeval timeout = {.tv_sec = REPLY_TIMEOUT_S};

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) != 0)
        return err_errno(errno, "cannot ask the kernel for its neighbours");
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static bool is_unanswered(const struct nlmsghdr *h, const struct target *t)
{
    const struct ndmsg *entry = NLMSG_DATA(h);
    unsigned left = h->nlmsg_len - (unsigned)NLMSG_LENGTH(sizeof(*entry));

    if (h->nlmsg_type != RTM_NEWNEIGH || h->nlmsg_len < NLMSG_LENGTH(sizeof(*entry)) || entry->ndm_family != t->family ||
        !(entry->ndm_state & (NUD_INCOMPLETE | NUD_FAILED)))
        return false;
    const struct rtattr *a =
        (const struct rtattr *)(const void *)((const char *)entry + NLMSG_ALIGN(sizeof(*entry)));
    for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == NDA_DST && RTA_PAYLOAD(a) == t->n)
            return memcmp(RTA_DATA(a), t->bytes, t->n) == 0;
    }
    return false;
}

/* The interfaces on which the address waits for an answer. */
static struct err *find(int fd, const struct target *t, int interfaces[ENTRIES_MAX], size_t *ret_n)
{
    struct entry_request request = {
        .header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ndmsg)),
                   .nlmsg_type = RTM_GETNEIGH,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .entry = {.ndm_family = t->family}};
    CLEANUP_FREE char *reply = xmalloc(REPLY_BYTES);
    size_t found = 0;

    if (send(fd, &request, request.header.nlmsg_len, 0) < 0)
        return err_errno(errno, "cannot ask the kernel for its neighbours");
    for (;;) {
        ssize_t n = recv(fd, reply, REPLY_BYTES, 0);
        if (n < 0)
            return err_errno(errno, "the kernel does not tell its neighbours");
        size_t left = (size_t)n;
        const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)reply;
        for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
                *ret_n = found;
                return NULL;
            }
            if (found < ENTRIES_MAX && is_unanswered(h, t))
                interfaces[found++] = ((const struct ndmsg *)NLMSG_DATA(h))->ndm_ifindex;
        }
    }
}

static struct err *forget(int fd, const struct target *t, int interface)
{
    struct entry_request request = {
        .header = {.nlmsg_len = (uint32_t)(NLMSG_LENGTH(sizeof(struct ndmsg)) + RTA_LENGTH(t->n)),
                   .nlmsg_type = RTM_DELNEIGH,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .entry = {.ndm_family = t->family, .ndm_ifindex = interface},
        .attribute = {.rta_len = (unsigned short)RTA_LENGTH(t->n), .rta_type = NDA_DST}};
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
    } answer;

    memcpy(request.address, t->bytes, t->n);
    if (send(fd, &request, request.header.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
        return err_errno(errno, "cannot forget a neighbour");
    if (answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error != 0 &&
        answer.error.error != -ENOENT)
        return err_errno(-answer.error.error, "cannot forget a neighbour");
    return NULL;
}

struct err *neighbour_forget_unanswered_sync(const char *address)
{
    CLEANUP_CLOSE int fd = -1;
    struct target t;
    int interfaces[ENTRIES_MAX];
    size_t n = 0;

    TRY(parse_address(address, &t));
    TRY(open_netlink(&fd));
    TRY(find(fd, &t, interfaces, &n));
    for (size_t i = 0; i < n; i++)
        TRY(forget(fd, &t, interfaces[i]));
    return NULL;
}
