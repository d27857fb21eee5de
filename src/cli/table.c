#include "cli/table.h"

#include "base/str.h"
#include "cli/text.h"

void table_init(struct table *t, size_t n_columns, const char *const *header)
{
    *t = (struct table){.n_columns = n_columns};
    for (size_t i = 0; i < n_columns; i++)
        table_cell(t, header[i]);
}

void table_cell(struct table *t, const char *text)
{
    CLEANUP_STR struct str safe = {0};

    text_append_safe(&safe, text ? text : "");
    t->cells = mem_grow(t->cells, t->n_cells, &t->cap, sizeof(*t->cells));
    t->cells[t->n_cells++] = str_steal(&safe);
}

void table_print(const struct table *t, FILE *to)
{
    CLEANUP_FREE size_t *widths = xcalloc(t->n_columns, sizeof(*widths));

    for (size_t i = 0; i < t->n_cells; i++) {
        size_t w = text_width(t->cells[i]);
        if (w > widths[i % t->n_columns])
            widths[i % t->n_columns] = w;
    }
    for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns) {
        size_t pending = 0; /* spaces owed, printed only before more text */
        for (size_t c = 0; c < t->n_columns; c++) {
            const char *cell = t->cells[i + c];
            if (*cell) {
                fprintf(to, "%*s%s", (int)pending, "", cell);
                pending = 0;
            }
            pending += widths[c] - text_width(cell) + 2;
        }
        fputc('\n', to);
    }
}

void table_done(struct table *t)
{
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    *t = (struct table){0};
}
