// Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464): each value head has a matrix (key_dim, value_dim), which every
// position forgets a share of, corrects and reads, one after the other: what a position gets is the same bits in a chunk
// or a step. A row reads the state behind it and writes the next one elsewhere, so that it can go back.
#pragma once
#include "cached.h"
#include "elements.h"
#include "pass.h"

#define LEAST_SQUARE 1e-6f  // added to the square of a query's or key's length

typedef struct {
    long key_heads, key_dim, value_dim, channels, taps;
} DeltaSizes;

INLINE DeltaSizes delta_sizes(const Operation *op) {
    long channels = 2 * op->key_heads * op->key_dim + op->value_heads * op->value_dim;
    return (DeltaSizes){op->key_heads, op->key_dim, op->value_dim, channels, op->taps};
}

static long state_size(const Operation *op) {
    return (op->taps - 1) * delta_sizes(op).channels + op->value_heads * op->key_dim * op->value_dim;
}

// What the convolution takes in at a position of a row: of this pass, before it in `old`, or null before the text.
static const float *taken_in(const Engine *e, const PassRow *row, const float *old, DeltaSizes s, long i) {
    if (i >= 0) return column(e, QUERY, row->first + i);
    return old ? old + (s.taps - 1 + i) * s.channels : NULL;
}

// silu of the convolution of `count` channels from `from` on at new position i.
static void convolve_channels(const Engine *e, const Operation *op, const PassRow *row, const float *old, DeltaSizes s,
                              long i, long from, long count, float *out) {
    for (long d = 0; d < count; d += LANES) {
        long some = min(LANES, count - d);
        vec sum = splat(0);
        for (long tap = 0; tap < s.taps; tap++) {
            const float *x = taken_in(e, row, old, s, i - (s.taps - 1) + tap);
            if (x) sum += load_some(x + from + d, some) * load_some(op->kernel + tap * s.channels + from + d, some);
        }
        store_some(out + d, sum / (1.0f + exp_of(-sum)), some);
    }
}

// x (n,) with length `length`.
static void scale_to(float *x, long n, float length) {
    vec squares = splat(0);
    for (long d = 0; d < n; d += LANES) {
        vec value = load_some(x + d, min(LANES, n - d));
        squares += value * value;
    }
    float scale = length / sqrtf(lane_sum(squares) + LEAST_SQUARE);
    for (long d = 0; d < n; d++) x[d] *= scale;
}

// matrix = decay * matrix + key * (beta * (value - (decay * matrix)^T key)), and out = matrix^T query.
NOINLINE void update_matrix(float *matrix, const float *query, const float *key, float *value, float decay, float beta,
                            long key_dim, long value_dim, float *out) {
    for (long d = 0; d < value_dim; d += LANES) {
        long some = min(LANES, value_dim - d);
        vec held = splat(0), result = splat(0);
        for (long k = 0; k < key_dim; k++) held += load_some(matrix + k * value_dim + d, some) * decay * key[k];
        vec delta = (load_some(value + d, some) - held) * beta;
        for (long k = 0; k < key_dim; k++) {
            vec next = load_some(matrix + k * value_dim + d, some) * decay + delta * key[k];
            store_some(matrix + k * value_dim + d, next, some);
            result += next * query[k];
        }
        store_some(out + d, result, some);
    }
}

// The new positions of a row in one value head, one after the other.
static void recur_head(const Engine *e, const Operation *op, const PassRow *row, long head, float *scratch) {
    DeltaSizes s = delta_sizes(op);
    const float *old = row->pieces[op->state][0].memory;
    float *new = (float *)row->pieces[op->state][1].memory + op->layer * state_size(op);
    if (old) old += op->layer * state_size(op);
    long before = (s.taps - 1) * s.channels, size = s.key_dim * s.value_dim, keys = s.key_heads * s.key_dim;
    long key_head = head / (op->value_heads / s.key_heads), from_value = 2 * keys + head * s.value_dim;
    float *query = scratch, *key = query + PADDED(s.key_dim), *value = key + PADDED(s.key_dim);
    float *matrix = new + before + head * size;
    if (old) memcpy(matrix, old + before + head * size, size * sizeof *matrix);
    else memset(matrix, 0, size * sizeof *matrix);
    for (long i = 0; i < row->count; i++) {
        long c = row->first + i;
        convolve_channels(e, op, row, old, s, i, key_head * s.key_dim, s.key_dim, query);
        convolve_channels(e, op, row, old, s, i, keys + key_head * s.key_dim, s.key_dim, key);
        convolve_channels(e, op, row, old, s, i, from_value, s.value_dim, value);
        scale_to(query, s.key_dim, 1 / sqrtf(s.key_dim));
        scale_to(key, s.key_dim, 1);
        float beta = 1 / (1 + expf(-column(e, ROUTED, c)[head]));
        float rate = column(e, SHARED, c)[head] + op->rates[op->value_heads + head];
        float step = rate > 20 ? rate : log1pf(expf(rate));
        float decay = expf(-expf(op->rates[head]) * step), *out = column(e, MIXED, c) + head * s.value_dim;
        update_matrix(matrix, query, key, value, decay, beta, s.key_dim, s.value_dim, out);
        normalise(&op->norm, out, out, false);
        const float *gate = column(e, KEY, c) + head * s.value_dim;
        for (long d = 0; d < s.value_dim; d += LANES) {
            long some = min(LANES, s.value_dim - d);
            vec x = load_some(gate + d, some);
            store_some(out + d, load_some(out + d, some) * x / (1.0f + exp_of(-x)), some);
        }
    }
}

// The last inputs of the convolution, for the passes that follow.
static void keep_inputs(const Engine *e, const Operation *op, const PassRow *row) {
    DeltaSizes s = delta_sizes(op);
    const float *old = row->pieces[op->state][0].memory;
    float *new = (float *)row->pieces[op->state][1].memory + op->layer * state_size(op);
    if (old) old += op->layer * state_size(op);
    for (long k = 0; k < s.taps - 1; k++) {
        const float *x = taken_in(e, row, old, s, row->count - (s.taps - 1) + k);
        if (x) memcpy(new + k * s.channels, x, s.channels * sizeof *x);
        else memset(new + k * s.channels, 0, s.channels * sizeof *x);
    }
}

static void recur(Engine *e, Member *self, const Operation *op) {
    long heads = op->value_heads, each = heads + 1, total = e->pass.count * each;
    TASKS(self, task, total) {
        const PassRow *row = &e->pass.rows[task / each];
        if (!row->count) continue;
        if (task % each < heads) recur_head(e, op, row, task % each, (float *)self->scratch);
        else keep_inputs(e, op, row);
    }
    barrier(self, total);
}

// What attention gave, times the sigmoid of its gate.
static void open_gate(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.columns, size = op->head_dim, n = e->sizes.heads * size;
    TASKS(self, c, columns) {
        float *x = column(e, MIXED, c);
        const float *gate = column(e, OPENING, c);
        for (long d = 0; d < n && !op->by_head; d += LANES) store(x + d, load(x + d) / (1.0f + exp_of(-load(gate + d))));
        for (long d = 0; d < n && op->by_head; d++) x[d] /= 1 + expf(-gate[d / size]);
    }
    barrier(self, columns);
}
