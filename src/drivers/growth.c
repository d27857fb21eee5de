#include "drivers/growth.h"

#include "base/str.h"
#include "drivers/driver.h"
#include "drivers/durable.h"

#include <inttypes.h>
#include <stdio.h>

#define NOTE "grow"

struct err *growth_note(int dir, uint64_t size)
{
    char text[24];
    uint64_t old = 0;

    TRY(growth_read(dir, &old));
    if (old)
        return NULL;
    (void)snprintf(text, sizeof(text), "%" PRIu64, size);
    return file_replace(dir, NOTE, text, strlen(text));
}

struct err *growth_read(int dir, uint64_t *ret_size)
{
    CLEANUP_FREE char *text = NULL;

    TRY(file_read(dir, NOTE, 24, &text));
    if (!text)
        *ret_size = 0;
    else if (!driver_size_parse(text, ret_size) || !*ret_size)
        *ret_size = 1; /* damaged: that it is there says enough */
    return NULL;
}

struct err *growth_forget(int dir)
{
    return file_remove(dir, NOTE);
}
