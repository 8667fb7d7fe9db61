// The squares of what matrices multiply, summed over the columns of passes: how much an error in each of their columns
// costs. An operation sums them up where its first matrix has room for them, and for those of its matrices that have.
#pragma once
#include "elements.h"
#include "pass.h"

// Of one column, normalised as the products take it. `scratch` takes as much as a column.
static void add_column_squares(const Matrix *m, const Norm *norm, const float *x, float *scratch) {
    if (!m->squares) return;
    if (norm->kind != NORM_NONE) {
        normalise(norm, x, scratch, false);
        x = scratch;
    }
    for (long k = 0; k < m->columns; k++) m->squares[k] += (double)x[k] * x[k];
}

static void add_squares(Engine *e, Member *self, const Operation *op) {
    if (!op->matrices->squares) return;
    TASKS(self, p, op->parts)
        for (long c = 0; c < e->pass.columns; c++)
            add_column_squares(op->matrices + p, &op->norm, column(e, op->source, c), (float *)self->scratch);
    barrier(self, op->parts);
}

// Of each expert those of its own pairs.
static void add_squares_of_pairs(Engine *e, Member *self, const Operation *op) {
    const Mixture *mixture = &e->mixture;
    if (!op->matrices->squares) return;
    TASKS(self, p, op->experts * op->parts) {
        long expert = p / op->parts, first = expert ? mixture->ends[expert - 1] : 0;
        for (long pair = first; pair < mixture->ends[expert]; pair++) {
            long c = op->source == HIDDEN ? mixture->columns[pair] : pair;
            add_column_squares(op->matrices + p, &op->norm, column(e, op->source, c), (float *)self->scratch);
        }
    }
    barrier(self, op->experts * op->parts);
}
