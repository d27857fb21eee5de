#include "device_tree.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

char tree_root[] = "/tmp/flocker-devices-XXXXXX";

int tree_make(void)
{
    return mkdtemp(tree_root) ? 0 : 1;
}

void tree_run(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    CLEANUP_FREE char *command = xvasprintf(fmt, ap);
    va_end(ap);
    assert_int_equal(system(command), 0);
}

int tree_empty(void **state)
{
    (void)state;
    tree_run("rm -rf %s && mkdir -p %s/sys/block %s/dev %s/etc/iscsi", tree_root, tree_root, tree_root, tree_root);
    return 0;
}

int tree_gone(void **state)
{
    (void)state;
    tree_run("rm -rf %s", tree_root);
    return 0;
}
