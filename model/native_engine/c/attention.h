// Attention over the cache, in chunks of positions that begin at multiples of CHUNK, folded together in their order:
// what a query gets does not depend on the slots its row begins in, on other queries, or on threads.
#pragma once
#include "dots.h"

#define CHUNK 128
#define VECTORS_PER_TILE 4  // of a value, in a register tile

typedef struct {  // queries of one key-value head, and what each may see
    const float *values;       // (count, size), zeros behind head_dim
    const int64_t *from, *to;  // positions from .. to - 1
    long count, head_dim, size;
    double scale, softcap;
} Queries;

typedef struct {  // keys and values of one head of one row, slot 0 being position `start`
    int kind;
    const char *keys, *values;
    long start;
} CachedHead;

typedef struct {  // a softmax in progress, per query: the greatest score, the sum of weights, the weighted values
    float *most, *sum, *mixed;  // (count,), (count,), (count, size)
} Partial;

INLINE vec values_at(int kind, const char *row, long d, long head_dim) {
    return d + LANES <= head_dim ? weights_at(kind, row, d) : last_weights(kind, row, d, head_dim - d);
}

// mixed[q][d ...] = the sum over positions i of weights[q][i] * values[i][d ...]
INLINE void mix_tile(int kind, int queries, int dims, const float *weights, const char *values, long bytes, long from,
                     long to, long d, long head_dim, float *mixed, long size) {
    vec acc[24], value[VECTORS_PER_TILE];
    UNROLL for (int i = 0; i < queries * dims; i++) acc[i] = splat(0);
    for (long i = from; i < to; i++) {
        UNROLL for (int v = 0; v < dims; v++)
            value[v] = dims > 1 ? weights_at(kind, values + i * bytes, d + v * LANES)
                                : values_at(kind, values + i * bytes, d, head_dim);
        UNROLL for (int q = 0; q < queries; q++) {
            vec weight = splat(weights[q * CHUNK + i]);
            UNROLL for (int v = 0; v < dims; v++) acc[q * dims + v] += weight * value[v];
        }
    }
    UNROLL for (int q = 0; q < queries; q++)
        UNROLL for (int v = 0; v < dims; v++) store(mixed + q * size + d + v * LANES, acc[q * dims + v]);
}

#define MIX(kind, queries, dims)                                                                                   \
    NOINLINE void mix_##kind##_##queries##_##dims(const float *weights, const char *values, long bytes, long from, \
                                               long to, long d, long head_dim, float *mixed, long size) {          \
        mix_tile(kind, queries, dims, weights, values, bytes, from, to, d, head_dim, mixed, size);                 \
    }
#define MIXES(kind, dims) MIX(kind, 1, dims) MIX(kind, 2, dims) MIX(kind, 3, dims) MIX(kind, 4, dims)
MIXES(FLOAT32, 1)
MIXES(FLOAT32, 4)
MIXES(BFLOAT16, 1)
MIXES(BFLOAT16, 4)

#define MIX_CASE(kind, queries, dims)                                                         \
    case queries:                                                                             \
        mix_##kind##_##queries##_##dims(weights, values, bytes, from, to, d, head_dim, mixed, size); \
        break;
#define MIX_CASES(kind, dims) \
    MIX_CASE(kind, 1, dims) MIX_CASE(kind, 2, dims) MIX_CASE(kind, 3, dims) MIX_CASE(kind, 4, dims)

static void mix(int kind, long queries, const float *weights, const char *values, long bytes, long from, long to,
                long head_dim, float *mixed, long size) {
    for (long d = 0; d < head_dim;) {
        bool wide = d + VECTORS_PER_TILE * LANES <= head_dim;
        if (kind == FLOAT32) {
            if (wide) switch (queries) { MIX_CASES(FLOAT32, 4) }
            else switch (queries) { MIX_CASES(FLOAT32, 1) }
        } else {
            if (wide) switch (queries) { MIX_CASES(BFLOAT16, 4) }
            else switch (queries) { MIX_CASES(BFLOAT16, 1) }
        }
        d += wide ? VECTORS_PER_TILE * LANES : LANES;
    }
}

// Scores (CHUNK,) of one query, to weights e**(score - most); those of positions outside from .. to - 1 are 0.
NOINLINE void softmax_chunk(float *scores, long from, long to, const Queries *queries, float *most, float *sum) {
    vec best = splat(-INFINITY), total = splat(0);
    float scale = queries->scale, cap = queries->softcap;
    for (long i = 0; i < CHUNK; i += LANES) {
        ivec index = iota() + (int32_t)i;
        ivec seen = (index >= (int32_t)from) & (index < (int32_t)to);
        vec score = blend(seen, load(scores + i), splat(0)) * scale;
        if (cap) score = cap * tanh_of(score / cap);
        score = blend(seen, score, splat(-INFINITY));
        store(scores + i, score);
        best = larger(score, best);
    }
    *most = lane_max(best);
    for (long i = 0; i < CHUNK; i += LANES) {
        vec weight = exp_of(load(scores + i) - *most);
        store(scores + i, weight);
        total += weight;
    }
    *sum = lane_sum(total);
}

// What these queries get from the CHUNK positions from `base` on. `scores` takes count * CHUNK numbers.
// Of queries that see none of them `most` is -infinity.
static void attend_chunk(const Queries *queries, const CachedHead *cached, long base, float *scores, Partial out) {
    long bytes = queries->head_dim * (cached->kind == FLOAT32 ? 4 : 2);
    const char *keys = cached->keys + (base - cached->start) * bytes;  // of position `base`, which may not be held
    const char *values = cached->values + (base - cached->start) * bytes;
    long first = CHUNK, end = 0;
    for (long q = 0; q < queries->count; q++) {
        long from = queries->from[q] - base, to = queries->to[q] - base;
        from = from < 0 ? 0 : from;
        to = to > CHUNK ? CHUNK : to;
        if (from >= to) continue;
        first = from < first ? from : first;
        end = to > end ? to : end;
    }
    for (long q = 0; q < queries->count; q += NR) {
        long some = queries->count - q < NR ? queries->count - q : NR;
        vec sums[NR];
        for (long i = first; i < end; i += LANES) {
            WeightRows rows = {keys + i * bytes, end - i < LANES ? end - i : LANES, bytes};
            dot_rows(cached->kind, some, &rows, queries->values + q * queries->size, queries->size, queries->head_dim, sums);
            for (long c = 0; c < some; c++) store_some(scores + (q + c) * CHUNK + i, sums[c], rows.count);
        }
    }
    for (long q = 0; q < queries->count; q++) {
        long from = queries->from[q] - base, to = queries->to[q] - base;
        if (from >= CHUNK || to <= 0 || from >= to) {
            out.most[q] = -INFINITY;
            out.sum[q] = 0;
            memset(scores + q * CHUNK, 0, CHUNK * sizeof *scores);
        } else
            softmax_chunk(scores + q * CHUNK, from < 0 ? 0 : from, to > CHUNK ? CHUNK : to, queries, &out.most[q], &out.sum[q]);
    }
    for (long q = 0; q < queries->count; q += 4) {
        long some = queries->count - q < 4 ? queries->count - q : 4;
        mix(cached->kind, some, scores + q * CHUNK, values, bytes, first, end, queries->head_dim,
            out.mixed + q * queries->size, queries->size);
    }
}

// Takes one query's part of a chunk into what came before it.
NOINLINE void fold(float *most, float *sum, float *mixed, float new_most, float new_sum, const float *new_mixed, long size) {
    if (new_most == -INFINITY) return;
    float top = *most > new_most ? *most : new_most;
    vec old = exp_of(splat(*most - top)), new = exp_of(splat(new_most - top));
    *sum = (splat(*sum) * old + splat(new_sum) * new)[0];
    *most = top;
    for (long d = 0; d < size; d += LANES) store(mixed + d, load(mixed + d) * old + load(new_mixed + d) * new);
}
