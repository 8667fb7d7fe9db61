// Scores: products of queries with cached keys. Each is summed in LANES accumulators along its length and then over the
// lanes, so every bit is the same for one query or many, at any place in the cache.
#pragma once
#include "cached.h"

#define KEYS_PER_TILE 4
#if LANES == 16
#define QUERIES_PER_TILE 4  // 16 of 32 registers are accumulators
#else
#define QUERIES_PER_TILE 3  // 12 of 16
#endif

// Of `queries` queries, `stride` numbers apart with zeros behind their end, with `count` keys of n numbers, LANES at
// most: a vector over the keys for each query.
INLINE void score_keys(int kind, int queries, const float *x, long stride, const char *keys, long bytes, long count, long n,
                       vec *sums) {
    vec acc[QUERIES_PER_TILE * LANES];
    for (long first = 0; first < LANES; first += KEYS_PER_TILE) {
        vec tile[QUERIES_PER_TILE * KEYS_PER_TILE], query[QUERIES_PER_TILE];
        const char *key[KEYS_PER_TILE];
        UNROLL for (int i = 0; i < KEYS_PER_TILE; i++) key[i] = keys + min(first + i, count - 1) * bytes;
        UNROLL for (int i = 0; i < queries * KEYS_PER_TILE; i++) tile[i] = splat(0);
        for (long d = 0; d < n; d += LANES) {
            UNROLL for (int q = 0; q < queries; q++) query[q] = load(x + q * stride + d);
            UNROLL for (int i = 0; i < KEYS_PER_TILE; i++) {  // one key at a time: AVX2 has no registers for more
                vec numbers = d + LANES <= n ? cached_numbers(kind, key[i], d) : last_cached_numbers(kind, key[i], d, n);
                UNROLL for (int q = 0; q < queries; q++) {
                    tile[q * KEYS_PER_TILE + i] += numbers * query[q];
                    COMPUTE_NOW(tile[q * KEYS_PER_TILE + i]);
                }
            }
        }
        UNROLL for (int q = 0; q < queries; q++)
            UNROLL for (int i = 0; i < KEYS_PER_TILE; i++) acc[q * LANES + first + i] = tile[q * KEYS_PER_TILE + i];
    }
    UNROLL for (int q = 0; q < queries; q++) sums[q] = lane_sums(acc + q * LANES, LANES);
}

#define SCORE_KEYS(kind, queries)                                                                                    \
    NOINLINE void score_keys_##kind##_##queries(const float *x, long stride, const char *keys, long bytes, long count, \
                                                long n, vec *sums) {                                                 \
        score_keys(kind, queries, x, stride, keys, bytes, count, n, sums);                                           \
    }
#define SCORE_CASE(kind, queries)                                                  \
    case queries:                                                                  \
        score_keys_##kind##_##queries(x, stride, keys, bytes, count, n, sums); \
        break;
#if QUERIES_PER_TILE == 4
#define EACH_COUNT(macro, kind) macro(kind, 1) macro(kind, 2) macro(kind, 3) macro(kind, 4)
#else
#define EACH_COUNT(macro, kind) macro(kind, 1) macro(kind, 2) macro(kind, 3)
#endif
EACH_COUNT(SCORE_KEYS, FLOAT32)
EACH_COUNT(SCORE_KEYS, BFLOAT16)
EACH_COUNT(SCORE_KEYS, INT8)

// The same for up to QUERIES_PER_TILE queries, without the scales of int8.
static void score(int kind, long queries, const float *x, long stride, const char *keys, long bytes, long count, long n,
                  vec *sums) {
    switch (kind) {
        case FLOAT32: switch (queries) { EACH_COUNT(SCORE_CASE, FLOAT32) } break;
        case BFLOAT16: switch (queries) { EACH_COUNT(SCORE_CASE, BFLOAT16) } break;
        default: switch (queries) { EACH_COUNT(SCORE_CASE, INT8) }
    }
}
