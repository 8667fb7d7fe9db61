// Dot products of rows of float32 and bfloat16 with columns of activations. Each is summed in LANES accumulators along
// its length and then over the lanes: the order, and so every bit, is the same for one column or many, on any thread.
#pragma once
#include <stdbool.h>
#include "program.h"
#include "vectors.h"

enum { CACHED = -1 };  // rows of float32 that need not be fetched
#define MR 4  // rows of weights in a register tile: for one column it waits for four sums in turn
// Rows of float32 are read fastest one after the other; the sums keep pace where vectors are wide.
#define ROWS_AT_ONCE(kind, columns) ((kind) != BFLOAT16 && (columns) == 1 && LANES >= 8 ? 1 : MR)
#if LANES == 8
#define NR 3  // columns of activations in it: 12 of 16 registers are accumulators
#else
#define NR 6
#endif
#define PREFETCH_DISTANCE 6144  // bytes
#define KC 640    // numbers of a row that stay in the first-level cache, with as many of the columns
#define GROUP 32  // columns are filled up to a multiple of it; and weights of int4 that share a scale and an offset
#define PADDED(size) (((size) + GROUP - 1) / GROUP * GROUP)

// Fetches a line of weights before it is needed.
INLINE void prefetch(const char *line) { __builtin_prefetch(line, 0, 2); }

typedef struct {  // up to LANES rows
    const char *values;
    long count, pitch;  // pitch: bytes from one row to the next
} WeightRows;

INLINE int bytes_of(int kind) { return kind == BFLOAT16 ? 2 : 4; }

INLINE vec weights_at(int kind, const char *row, long k) {
    return kind == BFLOAT16 ? load_bfloat16(row + 2 * k) : load(row + 4 * k);
}

INLINE vec last_weights(int kind, const char *row, long k, long count) {  // the rest are zeros
    char bytes[4 * LANES] = {0};
    memcpy(bytes, row + bytes_of(kind) * k, bytes_of(kind) * count);
    return weights_at(kind, bytes, 0);
}

// Adds numbers from .. to - 1 of a few rows times those of columns of x, `stride` numbers apart with zeros behind their
// end, to accumulators [columns][LANES], which begin with `from` 0.
INLINE void add_tile(int kind, int columns, const WeightRows *rows, long first, const float *x, long stride, long from,
                     long to, vec *sums) {
    const int tall = ROWS_AT_ONCE(kind, columns);
    vec acc[NR * MR], values[NR];
    const char *row[MR];
    UNROLL for (int r = 0; r < tall; r++)
        row[r] = rows->values + (first + r < rows->count ? first + r : rows->count - 1) * rows->pitch;
    UNROLL for (int i = 0; i < columns * tall; i++) acc[i] = from ? sums[i / tall * LANES + i % tall] : splat(0);
#define ADD(k, weights_of_row)                                                             \
    UNROLL for (int c = 0; c < columns; c++) values[c] = load(x + c * stride + (k));       \
    UNROLL for (int r = 0; r < tall; r++) {                                                \
        vec weights = weights_of_row;                                                      \
        UNROLL for (int c = 0; c < columns; c++) acc[c * tall + r] += weights * values[c]; \
    }
    long whole = to / LANES * LANES, ahead = max(PREFETCH_DISTANCE, tall * rows->pitch);  // the next rows begin side by side
    for (long k = from; k < whole; k += LANES) {
        bool begins_line = tall * LANES * bytes_of(kind) >= 64 || k * tall * bytes_of(kind) % 64 == 0;
        if (begins_line && kind != CACHED)
            UNROLL for (int next = 0; next < tall * LANES * bytes_of(kind); next += 64)
                __builtin_prefetch(row[0] + k * tall * bytes_of(kind) + next + ahead, 0, 2);
        ADD(k, weights_at(kind, row[r], k))
    }
    if (whole < to) {
        ADD(whole, last_weights(kind, row[r], whole, to - whole))
    }
#undef ADD
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int r = 0; r < tall; r++) sums[c * LANES + r] = acc[c * tall + r];
}

INLINE void dot_block(int kind, int columns, const WeightRows *rows, const float *x, long stride, long size, vec *sums) {
    vec acc[NR * LANES];
    long depth = kind != BFLOAT16 && columns == NR ? KC : size;
    for (long from = 0; from < size; from += depth)
        for (int r = 0; r < LANES; r += ROWS_AT_ONCE(kind, columns))
            add_tile(kind, columns, rows, r, x, stride, from, size - from < depth ? size : from + depth, acc + r);
    UNROLL for (int c = 0; c < columns; c++) sums[c] = lane_sums(acc + c * LANES, LANES);
}

#define DOT_BLOCK(kind, columns)                                                                                            \
    NOINLINE void dot_block_##kind##_##columns(const WeightRows *rows, const float *x, long stride, long size, vec *sums) { \
        dot_block(kind, columns, rows, x, stride, size, sums);                                                              \
    }
#define CASE(kind, count)                                        \
    case count:                                                  \
        dot_block_##kind##_##count(rows, x, stride, size, sums); \
        break;
#if NR == 6
#define DOT_BLOCKS(kind) DOT_BLOCK(kind, 1) DOT_BLOCK(kind, 2) DOT_BLOCK(kind, 3) DOT_BLOCK(kind, 4) DOT_BLOCK(kind, 6)
#define CASES(kind) CASE(kind, 1) CASE(kind, 2) CASE(kind, 3) CASE(kind, 4) CASE(kind, 6)
#define COLUMNS_AT_ONCE(left) ((left) == 5 ? 4 : min(left, NR))
#else
#define DOT_BLOCKS(kind) DOT_BLOCK(kind, 1) DOT_BLOCK(kind, 2) DOT_BLOCK(kind, 3)
#define CASES(kind) CASE(kind, 1) CASE(kind, 2) CASE(kind, 3)
#define COLUMNS_AT_ONCE(left) ((left) == 4 ? 2 : min(left, NR))
#endif
DOT_BLOCKS(FLOAT32)
DOT_BLOCKS(BFLOAT16)
DOT_BLOCKS(CACHED)

// The sums of up to LANES rows with COLUMNS_AT_ONCE: a vector over the rows for each column.
INLINE void dot_rows(int kind, long columns, const WeightRows *rows, const float *x, long stride, long size, vec *sums) {
    switch (kind) {
        case FLOAT32: switch (columns) { CASES(FLOAT32) } break;
        case BFLOAT16: switch (columns) { CASES(BFLOAT16) } break;
        default: switch (columns) { CASES(CACHED) }
    }
}
