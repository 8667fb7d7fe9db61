// Operations that take positions one by one: embedding, norms, projections, taps.
#pragma once
#include "dots.h"
#include "elements.h"
#include "engine.h"

#define TASK_ROWS 16        // rows of a matrix in a task: whole vectors, so that tasks share none
#define PANEL_ROWS 48       // the same where columns are many: rows are widened into a panel, and read many times
#define FEW 4               // columns that every thread normalises for itself, to be spared a barrier

static void embed(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    const Matrix *m = &op->matrices[0], *learned = &op->matrices[1];
    long n = m->columns, size = PADDED(n);
    float *scratch = (float *)self->scratch, *row = scratch + 2 * LANES * size / GROUP;
    long columns = pass->rows * pass->length;
    TASKS(self, c, columns) {
        float *out = column(e, HIDDEN, c);
        Rows rows = rows_of(m, pass->ids[c], 1, scratch);
        expand(m, &rows, 0, row);
        float scale = m->kind == INT8 ? ((const float *)m->scales)[pass->ids[c]] : 1;
        for (long i = 0; i < n; i++) out[i] = row[i] * scale;
        if (op->parts > 1) {
            rows = rows_of(learned, pass->lengths[c / pass->length] + c % pass->length, 1, scratch);
            expand(learned, &rows, 0, row);
            for (long i = 0; i < n; i++) out[i] += row[i];
        }
        for (long i = 0; i < n; i++) out[i] *= (float)op->scale;
    }
    barrier(self, columns);
}

static void normalise_columns(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.rows * e->pass.length;
    TASKS(self, c, columns) normalise(&op->norm, column(e, op->source, c), column(e, op->target, c), op->add);
    barrier(self, columns);
}

static void multiply_columns(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    bool head = op->kind == HEAD, last = head && pass->last;
    long columns = last ? pass->rows : pass->rows * pass->length;
    long stride = e->widths[op->source] * (last ? pass->length : 1);
    const float *x = column(e, op->source, last ? pass->length - 1 : 0);
    float *scratch = (float *)self->scratch;
    if (op->norm.kind != NORM_NONE) {
        long width = e->widths[NORMED], n = op->norm.size;
        if (columns <= FEW) {
            for (long c = 0; c < columns; c++) {
                normalise(&op->norm, x + c * stride, scratch + c * width, false);
                memset(scratch + c * width + n, 0, (width - n) * sizeof *scratch);
            }
            x = scratch;
            scratch += FEW * width;
        } else {
            TASKS(self, c, columns) normalise(&op->norm, x + c * stride, column(e, NORMED, c), false);
            barrier(self, columns);
            x = column(e, NORMED, 0);
        }
        stride = width;
    }
    long share = columns > COLUMNS ? PANEL_ROWS : TASK_ROWS, parts = op->gated ? 1 : op->parts, total = 0;
    for (long p = 0; p < parts; p++) total += (op->matrices[p].rows + share - 1) / share;
    TASKS(self, task, total) {
        long p = 0;
        for (long of; task >= (of = (op->matrices[p].rows + share - 1) / share); p++) task -= of;
        const Matrix *m = &op->matrices[p];
        long first = task * share, count = min(share, m->rows - first);
        if (head) {
            multiply(m, first, count, x, stride, columns, pass->logits + first, m->rows, false, scratch);
            if (op->softcap)
                for (long c = 0; c < columns; c++)
                    cap_logits(pass->logits + c * m->rows + first, count, op->softcap);
            continue;
        }
        long width = e->widths[op->target + p];
        float *out = column(e, op->target + p, 0) + first;
        multiply(m, first, count, x, stride, columns, out, width, op->add, scratch);
        if (op->gated) {
            float *up = column(e, op->target + 1, 0) + first;
            multiply(m + 1, first, count, x, stride, columns, up, width, false, scratch);
            for (long c = 0; c < columns; c++) activate(op->activation, out + c * width, up + c * width, count);
        } else if (op->activation != IDENTITY)
            for (long c = 0; c < columns; c++) activate(op->activation, out + c * width, NULL, count);
    }
    barrier(self, total);
}

static void tap(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.rows * e->pass.length, n = e->sizes.hidden;
    if (!e->pass.hidden) return;
    TASKS(self, c, columns) memcpy(e->pass.hidden + (op->layer * columns + c) * n, column(e, HIDDEN, c), n * sizeof(float));
    barrier(self, columns);
}
