/* A table of text with aligned columns. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct table {
    size_t n_columns;
    size_t n_cells;
    size_t cap;
    char **cells; /* row by row; the first row is the header */
};

void table_init(struct table *t, size_t n_columns, const char *const *header);
/* One cell; a row is complete after n_columns of them. Control characters are made harmless. NULL =
 * "". */
void table_cell(struct table *t, const char *text);
/* Prints with two spaces between the columns and no space at the end of a line. */
void table_print(const struct table *t, FILE *to);
void table_done(struct table *t);
