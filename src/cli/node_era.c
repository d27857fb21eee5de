/* flocker-node-era: prints the era of this node (contract section 5.4) without newline. */
#include "base/options.h"
#include "cli/programs.h"

#include "base/uuid.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct err *read_era(struct uuid *ret_era)
{
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[UUID_TEXT_SIZE] = {0};

    if (fd < 0)
        return err_errno(errno, "cannot open %s", path);
    if (read(fd, text, sizeof(text) - 1) != sizeof(text) - 1 || !uuid_parse(text, ret_era))
        return err_new(ERR_IO, "%s does not hold a UUID", path);
    return NULL;
}

static const struct cli_spec spec = {
    .program = "flocker-node-era",
    .synopsis = "flocker-node-era [options]",
    .text = "Prints the era of this node, a UUID that changes at each boot, without newline.",
};

int node_era_main(int argc, char **argv)
{
    struct uuid era;
    int first, status;

    if (!cli_begin(&spec, NULL, argc, argv, &first, &status))
        return status;
    if (first < argc)
        return cli_usage_error(&spec, "Wrong number of arguments: flocker-node-era takes none.");
    struct err *e = read_era(&era);
    if (e)
        return cli_fail(e);
    printf("%s", UUID_STR(&era));
    return 0;
}
