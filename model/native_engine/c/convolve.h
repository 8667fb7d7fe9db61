// The operation that mixes the last positions of each channel: what it takes in is written into the cache and read from
// there, so that a position gets the same bits in a chunk, a step, or after going back.
#pragma once
#include "cached.h"
#include "pass.h"

// What a row keeps of a position in one head of a convolution.
static char *convolved_vector(const Operation *op, const PassRow *row, long heads, long bytes, long head, long position) {
    const Piece *first = row->pieces[op->state], *piece = first + row->piece_counts[op->state] - 1;
    while (piece > first && piece->start > position) piece--;
    return (char *)piece->memory + ((op->layer * heads + head) * piece->slots + position - piece->start) * bytes;
}

// out (n,) = the sum over taps of weights (n,) times what the position took in, for the first `some` lanes from d on.
INLINE vec add_tap(int kind, const char *vector, long d, long n, vec weight, vec sum) {
    vec value = d + LANES <= n ? cached_numbers(kind, vector, d) : last_cached_numbers(kind, vector, d, n);
    float scale = 1;
    if (kind == INT8) memcpy(&scale, vector + n, sizeof scale);
    return sum + value * scale * weight;
}

// The new positions of a row in the channels of one head, one after the other.
static void convolve_head(const Engine *e, const Operation *op, const PassRow *row, long head, float *scratch) {
    long heads = e->sizes.heads, n = e->sizes.hidden / heads, kind = e->pass.cache_kind, taps = op->taps;
    long bytes = bytes_of_vector(kind, n);
    for (long i = 0; i < row->count; i++) {
        long position = row->length + i, c = row->first + i;
        const float *before = column(e, QUERY, c) + head * n, *after = column(e, KEY, c) + head * n;
        const float *middle = column(e, VALUE, c) + head * n;
        float *out = column(e, MIXED, c) + head * n;
        for (long d = 0; d < n; d++) scratch[d] = before[d] * middle[d];
        write_vector(kind, scratch, convolved_vector(op, row, heads, bytes, head, position), n);
        for (long d = 0; d < n; d += LANES) {
            long some = min(LANES, n - d);
            vec sum = op->kernel_bias ? load_some(op->kernel_bias + head * n + d, some) : splat(0);
            for (long tap = max(0, taps - 1 - position); tap < taps; tap++) {
                const char *vector = convolved_vector(op, row, heads, bytes, head, position - (taps - 1) + tap);
                sum = add_tap(kind, vector, d, n, load_some(op->kernel + tap * e->sizes.hidden + head * n + d, some), sum);
            }
            store_some(out + d, sum * load_some(after + d, some), some);
        }
    }
}

static void convolve(Engine *e, Member *self, const Operation *op) {
    long heads = e->sizes.heads, total = e->pass.count * heads;
    TASKS(self, task, total) convolve_head(e, op, &e->pass.rows[task / heads], task % heads, (float *)self->scratch);
    barrier(self, total);
}
