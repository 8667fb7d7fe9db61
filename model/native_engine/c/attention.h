// Attention over the cache, in chunks of positions that begin at multiples of CHUNK, folded together in their order:
// what a query gets does not depend on the slots its row begins in, on other queries, or on threads.
#pragma once
#include "cached.h"
#include "scores.h"

#define CHUNK 128
#define VECTORS_PER_TILE 4  // of a value, in a register tile
#define KEYS_AHEAD 4096     // bytes of keys that are fetched before they are needed
#define LEAST_WIDENED_FOR (2 * QUERIES_PER_TILE)  // queries, for which keys are made float32
#define MOST_WIDENED 256                          // numbers of a key that is

typedef struct {  // queries of one key-value head, and what each may see
    const float *values;       // (count, size), zeros behind head_dim
    const int64_t *from, *to;  // positions from .. to - 1
    long count, head_dim, size;
    double scale, softcap;
} Queries;

typedef struct {  // a softmax in progress, per query: the greatest score, the sum of weights, the weighted values
    float *most, *sum, *mixed;  // (count,), (count,), (count, size)
} Partial;

// For up to QUERIES_PER_TILE queries: mixed[q][d ...] = the sum over positions i of weights[q][i] * values[i][d ...]
INLINE void mix_tile(int kind, int queries, int dims, const float *weights, const char *values, long bytes, long from,
                     long to, long d, long n, float *mixed, long size) {
    vec acc[QUERIES_PER_TILE * VECTORS_PER_TILE], weight[QUERIES_PER_TILE];
    UNROLL for (int i = 0; i < queries * dims; i++) acc[i] = splat(0);
    for (long i = from; i < to; i++) {
        const char *vector = values + i * bytes;
        UNROLL for (int q = 0; q < queries; q++) weight[q] = splat(weights[q * CHUNK + i]);
        UNROLL for (int v = 0; v < dims; v++) {  // one vector of values at a time: AVX2 has no registers for more
            vec value = dims > 1 || d + LANES <= n ? cached_numbers(kind, vector, d + v * LANES)
                                                   : last_cached_numbers(kind, vector, d, n);
            UNROLL for (int q = 0; q < queries; q++) {
                acc[q * dims + v] += weight[q] * value;
                COMPUTE_NOW(acc[q * dims + v]);
            }
        }
    }
    UNROLL for (int q = 0; q < queries; q++)
        UNROLL for (int v = 0; v < dims; v++) store(mixed + q * size + d + v * LANES, acc[q * dims + v]);
}

#define MIX(kind, queries, dims)                                                                                   \
    NOINLINE void mix_##kind##_##queries##_##dims(const float *weights, const char *values, long bytes, long from, \
                                               long to, long d, long n, float *mixed, long size) {                 \
        mix_tile(kind, queries, dims, weights, values, bytes, from, to, d, n, mixed, size);                        \
    }
#define MIX_1(kind, queries) MIX(kind, queries, 1)
#define MIX_4(kind, queries) MIX(kind, queries, 4)
EACH_COUNT(MIX_1, FLOAT32)
EACH_COUNT(MIX_4, FLOAT32)
EACH_COUNT(MIX_1, BFLOAT16)
EACH_COUNT(MIX_4, BFLOAT16)
EACH_COUNT(MIX_1, INT8)
EACH_COUNT(MIX_4, INT8)

#define MIX_CASE(kind, queries, dims)                                                         \
    case queries:                                                                             \
        mix_##kind##_##queries##_##dims(weights, values, bytes, from, to, d, n, mixed, size); \
        break;
#define MIX_CASE_1(kind, queries) MIX_CASE(kind, queries, 1)
#define MIX_CASE_4(kind, queries) MIX_CASE(kind, queries, 4)
#define MIX_KIND(kind)                                                \
    case kind:                                                        \
        if (wide) switch (queries) { EACH_COUNT(MIX_CASE_4, kind) }   \
        else switch (queries) { EACH_COUNT(MIX_CASE_1, kind) }        \
        break;

static void mix(int kind, long queries, const float *weights, const char *values, long bytes, long from, long to, long n,
                float *mixed, long size) {
    for (long d = 0; d < n;) {
        bool wide = d + VECTORS_PER_TILE * LANES <= n;
        switch (kind) { MIX_KIND(FLOAT32) MIX_KIND(BFLOAT16) MIX_KIND(INT8) }
        d += wide ? VECTORS_PER_TILE * LANES : LANES;
    }
}

// Scores of one query up to position `end`, to weights e**(score - most); those of positions outside from .. to - 1 are 0.
NOINLINE void softmax_chunk(float *scores, long from, long to, long end, const Queries *queries, float *most, float *sum) {
    vec best = splat(-INFINITY), total = splat(0);
    float scale = queries->scale, cap = queries->softcap;
    for (long i = 0; i < end; i += LANES) {
        ivec index = iota() + (int32_t)i;
        ivec seen = (index >= (int32_t)from) & (index < (int32_t)to);
        vec score = blend(seen, load(scores + i), splat(0)) * scale;
        if (cap) score = cap * tanh_of(score / cap);
        score = blend(seen, score, splat(-INFINITY));
        store(scores + i, score);
        best = larger(score, best);
    }
    *most = lane_max(best);
    for (long i = 0; i < end; i += LANES) {
        vec weight = exp_of(load(scores + i) - *most);
        store(scores + i, weight);
        total += weight;
    }
    *sum = lane_sum(total);
}

// x[i] *= scales[i] for i from .. to - 1.
NOINLINE void scale_numbers(float *x, const float *scales, long from, long to) {
    for (long i = from; i < to; i++) x[i] *= scales[i];
}

// Scores of all queries, CHUNK numbers apart, with `count` keys, LANES at most. Keys that many queries read are made
// float32 once.
static void score_vector(const Queries *queries, int kind, const char *keys, long bytes, long count, float *scores) {
    float wide[LANES * MOST_WIDENED];
    long n = queries->head_dim;
    if (kind != FLOAT32 && n <= MOST_WIDENED && queries->count >= LEAST_WIDENED_FOR) {
        for (long i = 0; i < count; i++) widen_vector(kind, keys + i * bytes, n, wide + i * n);
        kind = FLOAT32, keys = (const char *)wide, bytes = n * sizeof *wide;
    }
    for (long q = 0; q < queries->count; q += QUERIES_PER_TILE) {
        vec sums[QUERIES_PER_TILE];
        long some = min(QUERIES_PER_TILE, queries->count - q);
        score(kind, some, queries->values + q * queries->size, queries->size, keys, bytes, count, n, sums);
        for (long c = 0; c < some; c++) store_some(scores + (q + c) * CHUNK, sums[c], count);
    }
}

// What these queries get from the CHUNK positions from `base` on. `scores` takes count * CHUNK numbers.
// Of queries that see none of them `most` is -infinity.
static void attend_chunk(const Queries *queries, const CachedHead *cached, long base, float *scores, Partial out) {
    long n = queries->head_dim, bytes = cached->bytes;
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
    for (long i = first; i < end; i += LANES) {
        for (long line = i * bytes; line < min(i + LANES, end) * bytes; line += 64) {
            __builtin_prefetch(keys + line + KEYS_AHEAD, 0, 2);
            __builtin_prefetch(values + line, 0, 2);  // needed when all keys are scored
        }
        score_vector(queries, cached->kind, keys + i * bytes, bytes, min(LANES, end - i), scores + i);
    }
    float scales[CHUNK];
    if (cached->kind == INT8) {
        read_scales(keys + first * bytes, bytes, end - first, scales + first);
        for (long q = 0; q < queries->count; q++) scale_numbers(scores + q * CHUNK, scales, first, end);
    }
    for (long q = 0; q < queries->count; q++) {
        long from = queries->from[q] - base, to = queries->to[q] - base;
        if (from >= CHUNK || to <= 0 || from >= to) {
            out.most[q] = -INFINITY;
            out.sum[q] = 0;
            memset(scores + q * CHUNK, 0, CHUNK * sizeof *scores);
        } else
            softmax_chunk(scores + q * CHUNK, max(from, 0), min(to, CHUNK), end, queries, &out.most[q], &out.sum[q]);
    }
    if (cached->kind == INT8) {
        read_scales(values + first * bytes, bytes, end - first, scales + first);
        for (long q = 0; q < queries->count; q++) scale_numbers(scores + q * CHUNK, scales, first, end);
    }
    for (long q = 0; q < queries->count; q += QUERIES_PER_TILE)
        mix(cached->kind, min(QUERIES_PER_TILE, queries->count - q), scores + q * CHUNK, values, bytes, first, end, n,
            out.mixed + q * queries->size, queries->size);
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
