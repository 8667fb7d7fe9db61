// Dot products of rows of float32 and bfloat16 with columns of activations. Each is summed in LANES accumulators along its length
// and then over the lanes: the order, and so every bit, is the same for one column or many, on any thread.
#pragma once
#include <stdbool.h>
#include "program.h"
#include "vectors.h"

#define ROWS 4       // of weights, in one tile of accumulators
#if LANES == 8
#define COLUMNS 3    // 16 registers
#else
#define COLUMNS 6
#endif
#define FEW_COLUMNS 2
#define AHEAD 6144   // bytes that weights are fetched ahead of their use
#define STRETCH 640  // numbers of rows and columns that are in the first cache together
#define GROUP 32     // columns are filled up to a multiple of it; and weights of int4 that share a scale and an offset
#define PADDED(size) (((size) + GROUP - 1) / GROUP * GROUP)

// Whether the processor is slower when it is told what comes next in a fast stream: AMD's are, one library serves all.
static bool sees_streams;
#if defined(__x86_64__)
__attribute__((constructor)) static void look_at_processor(void) {
    __builtin_cpu_init();
    sees_streams = __builtin_cpu_is("amd");
}
#endif

// Fetches a line of weights, of which there is a fast stream where there is little work on each.
INLINE void fetch(bool fast, const char *line) {
    if (!fast || !sees_streams) __builtin_prefetch(line, 0, 2);
}

typedef struct {  // up to LANES rows
    const char *values;
    long count, pitch;  // pitch: bytes from one row to the next
} Rows;

INLINE int bytes_of(int kind) { return kind == FLOAT32 ? 4 : 2; }

INLINE vec weights_at(int kind, const char *row, long k) {
    return kind == FLOAT32 ? load(row + 4 * k) : load_bfloat16(row + 2 * k);
}

INLINE vec last_weights(int kind, const char *row, long k, long count) {  // the rest are zeros
    char bytes[4 * LANES] = {0};
    memcpy(bytes, row + bytes_of(kind) * k, bytes_of(kind) * count);
    return weights_at(kind, bytes, 0);
}

// The sums of one row with columns of x in accumulators, as `tile` has them for several. Few columns wait for memory,
// which is fastest read straight on.
INLINE void line(int kind, int columns, const char *row, const float *x, long stride, long size, vec *sums) {
    vec acc[FEW_COLUMNS];
    UNROLL for (int c = 0; c < columns; c++) acc[c] = splat(0);
    long whole = size / LANES * LANES;
    for (long k = 0; k < whole; k += LANES) {
        fetch(true, row + k * bytes_of(kind) + AHEAD);
        vec weights = weights_at(kind, row, k);
        UNROLL for (int c = 0; c < columns; c++) acc[c] += weights * load(x + c * stride + k);
    }
    if (whole < size) {
        vec weights = last_weights(kind, row, whole, size - whole);
        UNROLL for (int c = 0; c < columns; c++) acc[c] += weights * load(x + c * stride + whole);
    }
    UNROLL for (int c = 0; c < columns; c++) sums[c * LANES] = acc[c];
}

// Adds numbers from .. to - 1 of ROWS rows times those of columns of x, `stride` numbers apart with zeros behind their
// end, to accumulators [columns][LANES], which begin with `from` 0.
INLINE void tile(int kind, int columns, const Rows *rows, long first, const float *x, long stride, long from, long to,
                 vec *sums) {
    vec acc[COLUMNS * ROWS], weights[ROWS];
    const char *row[ROWS];
    UNROLL for (int r = 0; r < ROWS; r++)
        row[r] = rows->values + (first + r < rows->count ? first + r : rows->count - 1) * rows->pitch;
    UNROLL for (int i = 0; i < columns * ROWS; i++) acc[i] = from ? sums[i / ROWS * LANES + i % ROWS] : splat(0);
#define ADD(k)                                                                         \
    UNROLL for (int c = 0; c < columns; c++) {                                         \
        vec value = load(x + c * stride + (k));                                        \
        UNROLL for (int r = 0; r < ROWS; r++) acc[c * ROWS + r] += weights[r] * value; \
    }
    long whole = to / LANES * LANES, ahead = max(AHEAD, ROWS * rows->pitch);  // the next ROWS rows begin side by side
    for (long k = from; k < whole; k += LANES) {
        if (kind != FLOAT32 || columns < COLUMNS)  // else they are most likely in the cache
            UNROLL for (int next = 0; next < ROWS * LANES * bytes_of(kind); next += 64)
                __builtin_prefetch(row[0] + k * ROWS * bytes_of(kind) + next + ahead, 0, 2);
        UNROLL for (int r = 0; r < ROWS; r++) weights[r] = weights_at(kind, row[r], k);
        ADD(k)
    }
    if (whole < to) {
        UNROLL for (int r = 0; r < ROWS; r++) weights[r] = last_weights(kind, row[r], whole, to - whole);
        ADD(whole)
    }
#undef ADD
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int r = 0; r < ROWS; r++) sums[c * LANES + r] = acc[c * ROWS + r];
}

INLINE void block(int kind, int columns, const Rows *rows, const float *x, long stride, long size, vec *sums) {
    vec acc[COLUMNS * LANES];
    long stretch = kind == FLOAT32 && columns == COLUMNS ? STRETCH : size;
    if (columns <= FEW_COLUMNS)
        for (int r = 0; r < LANES; r++) line(kind, columns, rows->values + min(r, rows->count - 1) * rows->pitch, x, stride, size, acc + r);
    else for (long from = 0; from < size; from += stretch)
        for (int r = 0; r < LANES; r += ROWS)
            tile(kind, columns, rows, r, x, stride, from, size - from < stretch ? size : from + stretch, acc + r);
    UNROLL for (int c = 0; c < columns; c++) sums[c] = lane_sums(acc + c * LANES, LANES);
}

#define BLOCK(kind, columns)                                                                                     \
    APART void block_##kind##_##columns(const Rows *rows, const float *x, long stride, long size, vec *sums) {   \
        block(kind, columns, rows, x, stride, size, sums);                                                       \
    }
#define CASE(kind, count)                                     \
    case count:                                               \
        block_##kind##_##count(rows, x, stride, size, sums);  \
        break;
#if COLUMNS == 6
#define BLOCKS(kind) BLOCK(kind, 1) BLOCK(kind, 2) BLOCK(kind, 3) BLOCK(kind, 4) BLOCK(kind, 6)
#define CASES(kind) CASE(kind, 1) CASE(kind, 2) CASE(kind, 3) CASE(kind, 4) CASE(kind, 6)
#define AT_ONCE(left) ((left) == 5 ? 4 : (left))
#else
#define BLOCKS(kind) BLOCK(kind, 1) BLOCK(kind, 2) BLOCK(kind, 3)
#define CASES(kind) CASE(kind, 1) CASE(kind, 2) CASE(kind, 3)
#define AT_ONCE(left) (left)
#endif
BLOCKS(FLOAT32)
BLOCKS(BFLOAT16)

// The sums of up to LANES rows with up to COLUMNS columns: a vector over the rows for each column.
static void sums_of(int kind, long columns, const Rows *rows, const float *x, long stride, long size, vec *sums) {
    while (columns) {
        int count = AT_ONCE(columns);
        if (kind == FLOAT32) switch (count) { CASES(FLOAT32) }
        else switch (count) { CASES(BFLOAT16) }
        columns -= count;
        x += count * stride;
        sums += count;
    }
}
