// Operations that take positions one by one: embedding, norms, projections, taps.
#pragma once
#include "calibrate.h"
#include "elements.h"
#include "pass.h"
#include "products.h"

#define PREFETCH_BYTES 8192  // of the next operation's weights
#define UNSHARED_COLUMNS 4   // up to which every thread makes the columns ready for itself, to be spared a barrier

static void embed(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    const Matrix *m = &op->matrices[0], *learned = &op->matrices[1];
    long n = m->columns;
    float *row = (float *)self->scratch;
    TASKS(self, c, pass->columns) {
        float *out = column(e, op->target, c);
        row_as_float32(m, pass->ids[c], row);
        float scale = m->kind == INT8 ? ((const float *)m->scales)[pass->ids[c]] : 1;
        if (op->add) {
            for (long i = 0; i < n; i++) out[i] += row[i] * scale * (float)op->scale;
            continue;
        }
        for (long i = 0; i < n; i++) out[i] = row[i] * scale;
        if (op->parts > 1) {
            row_as_float32(learned, e->positions[c], row);
            for (long i = 0; i < n; i++) out[i] += row[i];
        }
        for (long i = 0; i < n; i++) out[i] *= (float)op->scale;
    }
    barrier(self, pass->columns);
}

static void normalise_columns(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.columns, n = op->norm.size;
    TASKS(self, c, columns)
        for (long p = 0; p < op->parts; p++)
            normalise(&op->norm, column(e, op->source, c) + p * n, column(e, op->target, c) + p * n, op->add);
    barrier(self, columns);
}

// A column as the products of an operation take it: normalised, in fixed point, both, or as it is. `scratch` takes as
// much as `out`.
static void make_ready(const Norm *norm, const Matrix *m, const float *x, float *out, float *scratch) {
    bool fixed = !takes_floats(m);
    if (norm->kind != NORM_NONE || !fixed) {
        float *normed = fixed ? scratch : out;
        if (norm->kind != NORM_NONE)
            normalise(norm, x, normed, false);
        else
            memcpy(normed, x, m->columns * sizeof *x);
        memset(normed + m->columns, 0, (PADDED(m->columns) - m->columns) * sizeof *normed);
        x = normed;
    }
#if BYTE_PRODUCTS
    if (takes_bytes(m)) {
        to_fixed(x, m->columns, (Fixed *)out);
        return;
    }
#endif
    if (fixed) to_words(m->kind, x, m->columns, (WordGroup *)out);
}

// How many columns an operation reads, and the i-th of them: the head reads those whose logits are wanted.
INLINE long count_columns(const Engine *e, const Operation *op) {
    return op->kind == HEAD ? e->output_count : e->pass.columns;
}

INLINE const float *source_column(const Engine *e, const Operation *op, long i) {
    return column(e, op->source, op->kind == HEAD ? e->outputs[i] : i);
}

INLINE bool needs_no_preparation(const Operation *op) {
    return op->kind != HEAD && op->norm.kind == NORM_NONE && takes_floats(&op->matrices[0]);
}

// Many columns are made ready by all threads together.
static void make_many_ready(Engine *e, Member *self, const Operation *op, long count) {
    if (count <= UNSHARED_COLUMNS || needs_no_preparation(op)) return;
    TASKS(self, c, count) make_ready(&op->norm, op->matrices, source_column(e, op, c), column(e, READY, c), (float *)self->scratch);
    barrier(self, count);
}

// The columns as the products take them. Few are made ready by every thread for itself in its scratch memory, to be
// spared a barrier.
static ActivationColumns ready_columns(Engine *e, const Operation *op, long count, float **scratch) {
    if (needs_no_preparation(op))
        return (ActivationColumns){(const char *)column(e, op->source, 0), e->widths[op->source] * sizeof(float), count,
                                   false};
    long width = e->widths[READY];
    float *ready = column(e, READY, 0);
    if (count <= UNSHARED_COLUMNS) {
        ready = *scratch;
        *scratch += UNSHARED_COLUMNS * width;
        for (long c = 0; c < count; c++) make_ready(&op->norm, op->matrices, source_column(e, op, c), ready + c * width, *scratch);
    }
    const Matrix *m = &op->matrices[0];
    bool tiled = takes_bytes(m) && e->tiled && count >= least_tiled(m->kind);
    return (ActivationColumns){(const char *)ready, width * sizeof *ready, count, tiled};
}

// Rows in a task: more where they are read many times, and where two matrices take turns, each of which is a stream.
INLINE long rows_per_task(const Operation *op, long columns) {
    return columns > NR || op->gated ? ROWS_PER_TASK_MANY_COLUMNS : ROWS_PER_TASK;
}

INLINE long tasks_of(const Matrix *m, long task_rows) { return (m->rows + task_rows - 1) / task_rows; }

INLINE long count_tasks(const Operation *op, long task_rows) {
    long total = 0;
    for (long p = 0; p < (op->gated ? 1 : op->parts); p++) total += tasks_of(op->matrices + p, task_rows);
    return total;
}

// The part whose task this is, by its number among those of all parts, which becomes that among the part's own.
INLINE long part_of(const Operation *op, long task_rows, long *task) {
    long p = 0;
    for (long of; *task >= (of = tasks_of(op->matrices + p, task_rows)); p++) *task -= of;
    return p;
}

// Fetches the beginning of the weights that this thread will read next, before it waits for the others.
static void prefetch_next(const Engine *e, const Member *self, const Operation *op, long columns) {
    while (++op < e->operations + e->count && op->kind != MULTIPLY && op->kind != HEAD && op->kind != CHOOSE) continue;
    if (op == e->operations + e->count || op->kind == CHOOSE) return;  // nobody knows yet which expert it will be
    long task_rows = rows_per_task(op, columns), task = count_tasks(op, task_rows) * self->number / self->team->size;
    const Matrix *m = &op->matrices[part_of(op, task_rows, &task)];
    const char *from = m->kind >= INT8 ? panel_of(m, task * task_rows).values : rows_of(m, task * task_rows, 1).values;
    for (long line = 0; line < PREFETCH_BYTES; line += 64) __builtin_prefetch(from + line, 0, 2);
}

static void multiply_columns(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    bool head = op->kind == HEAD;
    float *scratch = (float *)self->scratch;
    ActivationColumns columns = {0};
    long all = count_columns(e, op), task_rows = rows_per_task(op, all), total = count_tasks(op, task_rows);
    if (!head) add_squares(e, self, op);
    make_many_ready(e, self, op, all);
    TASKS(self, task, total) {
        // With a task in hand, for which all wait: a thread that comes late would read what others write by now.
        if (!columns.count) columns = ready_columns(e, op, all, &scratch);
        const Matrix *m = &op->matrices[part_of(op, task_rows, &task)];
        long first = task * task_rows, count = min(task_rows, m->rows - first);
        if (head) {
            Target to = {pass->logits + first, m->rows, false};
            multiply(m, first, count, columns, to, scratch);
            if (op->softcap || op->scale != 1)
                for (long c = 0; c < columns.count; c++)
                    finish_logits(column_of(to, c, 0), count, op->scale, op->softcap);
            continue;
        }
        long target = op->target + (m - op->matrices);
        Target to = {column(e, target, 0) + first, e->widths[target], op->add};
        multiply(m, first, count, columns, to, scratch);
        if (op->gated) {
            Target up = {column(e, op->target + 1, 0) + first, e->widths[op->target + 1], false};
            multiply(m + 1, first, count, columns, up, scratch);
            for (long c = 0; c < columns.count; c++)
                activate(op, column_of(to, c, 0), column_of(up, c, 0), count);
        } else if (op->activation != IDENTITY)
            for (long c = 0; c < columns.count; c++) activate(op, column_of(to, c, 0), NULL, count);
    }
#if TILES
    if (columns.tiled) _tile_release();
#endif
    if (all <= UNSHARED_COLUMNS) prefetch_next(e, self, op, all);
    barrier(self, total);
}

// A buffer times a stretch of another, number by number.
static void times(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.columns;
    TASKS(self, c, columns) {
        float *out = column(e, op->target, c);
        const float *with = column(e, op->source, c) + op->first;
        for (long i = 0; i < op->size; i++) out[i] *= with[i];
    }
    barrier(self, columns);
}

static void tap(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.columns, n = e->sizes.hidden;
    if (!e->pass.hidden) return;
    TASKS(self, c, columns) memcpy(e->pass.hidden + (op->layer * columns + c) * n, column(e, HIDDEN, c), n * sizeof(float));
    barrier(self, columns);
}
