// Operations that take positions one by one: embedding, norms, projections, taps.
#pragma once
#include "elements.h"
#include "engine.h"
#include "products.h"

#define FEW 4               // columns that every thread normalises for itself, to be spared a barrier

static void embed(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    const Matrix *m = &op->matrices[0], *learned = &op->matrices[1];
    long n = m->columns;
    float *scratch = (float *)self->scratch, *row = scratch + SCALES(n);
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

// `count` columns, `stride` apart, as the products of an operation take them, if not as they are: normalised, in fixed
// point, or both. `out` takes them `width` apart, or as one band; `scratch` takes as much.
static void make_ready(const Operation *op, const float *x, long stride, long count, float *out, long width, bool tiled,
                       float *scratch) {
    const Matrix *m = &op->matrices[0];
    bool fixed = in_fixed_point(m);
    if (op->norm.kind != NORM_NONE) {
        float *normed = fixed ? scratch : out;
        for (long c = 0; c < count; c++) {
            normalise(&op->norm, x + c * stride, normed + c * width, false);
            memset(normed + c * width + m->columns, 0, (PADDED(m->columns) - m->columns) * sizeof *normed);
        }
        x = normed;
        stride = width;
    }
#if TILES
    if (tiled) {
        to_band(m->kind, x, stride, count, m->columns, (Band *)out);
        return;
    }
#endif
#if BYTE_PRODUCTS
    for (long c = 0; fixed && c < count; c++) to_fixed(m->kind, x + c * stride, m->columns, (Fixed *)(out + c * width));
#endif
}

// The columns that an operation reads, made ready: few by every thread for itself in its scratch memory, to be spared
// a barrier, and many by all together.
static Columns columns_of(Engine *e, Member *self, const Operation *op, bool last, float **scratch) {
    const Pass *pass = &e->pass;
    long count = last ? pass->rows : pass->rows * pass->length;
    long stride = e->widths[op->source] * (last ? pass->length : 1), width = e->widths[READY];
    const float *x = column(e, op->source, last ? pass->length - 1 : 0);
    bool fixed = in_fixed_point(&op->matrices[0]);
    bool tiled = fixed && e->tiled && count >= least_tiled(op->matrices[0].kind);
    if (op->norm.kind == NORM_NONE && !fixed) return (Columns){(const char *)x, stride * sizeof *x, count, false};
    long some = tiled ? BAND : FEW;
    float *ready = count <= some ? *scratch : column(e, READY, 0);
    if (count <= some) {
        *scratch += some * width;
        make_ready(op, x, stride, count, ready, width, tiled, *scratch);
    } else {
        long share = tiled ? BAND : 1, total = (count + share - 1) / share;
        TASKS(self, task, total) {
            long c = task * share;
            make_ready(op, x + c * stride, stride, min(share, count - c), ready + c * width, width, tiled, *scratch);
        }
        barrier(self, total);
    }
    return (Columns){(const char *)ready, width * sizeof *ready, count, tiled};
}

static void multiply_columns(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    bool head = op->kind == HEAD;
    float *scratch = (float *)self->scratch;
    Columns columns = columns_of(e, self, op, head && pass->last, &scratch);
    long share = columns.count > COLUMNS ? PANEL_ROWS : TASK_ROWS, parts = op->gated ? 1 : op->parts, total = 0;
    for (long p = 0; p < parts; p++) total += (op->matrices[p].rows + share - 1) / share;
#if TILES
    if (columns.tiled) set_tiles();
#endif
    TASKS(self, task, total) {
        long p = 0;
        for (long of; task >= (of = (op->matrices[p].rows + share - 1) / share); p++) task -= of;
        const Matrix *m = &op->matrices[p];
        long first = task * share, count = min(share, m->rows - first);
        if (head) {
            Target to = {pass->logits + first, m->rows, false};
            multiply(m, first, count, columns, to, scratch);
            if (op->softcap)
                for (long c = 0; c < columns.count; c++) cap_logits(column_of(to, c, 0), count, op->softcap);
            continue;
        }
        Target to = {column(e, op->target + p, 0) + first, e->widths[op->target + p], op->add};
        multiply(m, first, count, columns, to, scratch);
        if (op->gated) {
            Target up = {column(e, op->target + 1, 0) + first, e->widths[op->target + 1], false};
            multiply(m + 1, first, count, columns, up, scratch);
            for (long c = 0; c < columns.count; c++)
                activate(op->activation, column_of(to, c, 0), column_of(up, c, 0), count);
        } else if (op->activation != IDENTITY)
            for (long c = 0; c < columns.count; c++) activate(op->activation, column_of(to, c, 0), NULL, count);
    }
#if TILES
    if (columns.tiled) _tile_release();
#endif
    barrier(self, total);
}

static void tap(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.rows * e->pass.length, n = e->sizes.hidden;
    if (!e->pass.hidden) return;
    TASKS(self, c, columns) memcpy(e->pass.hidden + (op->layer * columns + c) * n, column(e, HIDDEN, c), n * sizeof(float));
    barrier(self, columns);
}
