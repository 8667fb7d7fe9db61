// Dot products of rows of weights with columns of activations. Each is summed in LANES accumulators along its length
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
#define AHEAD 6144   // bytes that weights are fetched ahead of their use
#define STRETCH 640  // numbers of a panel's rows and columns that are in the first cache together
#define GROUP 32     // weights of int4 that share a scale and an offset
#define PADDED(size) (((size) + GROUP - 1) / GROUP * GROUP)

typedef struct {  // up to LANES rows, ready to be read
    const char *values;
    long count, pitch;              // pitch: bytes from one row to the next
    const float *scales, *offsets;  // int4: (LANES, groups), widened
} Rows;

INLINE int bytes_of(int kind) { return kind == FLOAT32 ? 4 : kind == BFLOAT16 ? 2 : 1; }

INLINE vec weights_at(int kind, const char *row, long k) {
    if (kind == FLOAT32) return load(row + 4 * k);
    if (kind == BFLOAT16) return load_bfloat16(row + 2 * k);
    return floats(widen_int8(row + k));
}

INLINE vec last_weights(int kind, const char *row, long k, long count) {  // the rest are zeros
    char bytes[4 * LANES] = {0};
    long size = kind == FLOAT32 ? 4 : kind == BFLOAT16 ? 2 : 1;
    memcpy(bytes, row + size * k, size * count);
    return weights_at(kind, bytes, 0);
}

// Part `part` of the GROUP / LANES parts of a group of int4.
INLINE vec nibbles_at(const char *group, int part, float scale, float offset) {
    int byte = part * LANES % (GROUP / 2), shift = part * LANES / (GROUP / 2) * 4;
    ivec bytes = widen_uint8(group + byte);
#if LANES == 16 && !defined(__clang__)
    return __builtin_shuffle(floats(iota()) * scale + offset, bytes >> shift);  // the index is taken modulo 16
#else
    return floats(bytes >> shift & 15) * scale + offset;
#endif
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
#define STEP(k)                                                                        \
    UNROLL for (int c = 0; c < columns; c++) {                                         \
        vec value = load(x + c * stride + (k));                                        \
        UNROLL for (int r = 0; r < ROWS; r++) acc[c * ROWS + r] += weights[r] * value; \
    }
    if (kind == INT4) {
        long groups = PADDED(to) / GROUP;
        const float *scales = rows->scales + first * groups, *offsets = rows->offsets + first * groups;
        for (long g = 0; g < groups; g++) {
            __builtin_prefetch(row[0] + g * (ROWS * GROUP / 2) + AHEAD, 0, 2);
            UNROLL for (int part = 0; part < GROUP / LANES; part++) {
                UNROLL for (int r = 0; r < ROWS; r++)
                    weights[r] = nibbles_at(row[r] + g * (GROUP / 2), part, scales[r * groups + g], offsets[r * groups + g]);
                STEP(g * GROUP + part * LANES)
            }
        }
    } else {
        long whole = to / LANES * LANES;
        for (long k = from; k < whole; k += LANES) {
            if (kind != FLOAT32 || columns < COLUMNS)  // else they are most likely a panel
                UNROLL for (int line = 0; line < ROWS * LANES * bytes_of(kind); line += 64)
                    __builtin_prefetch(row[0] + k * ROWS * bytes_of(kind) + line + AHEAD, 0, 2);
            UNROLL for (int r = 0; r < ROWS; r++) weights[r] = weights_at(kind, row[r], k);
            STEP(k)
        }
        if (whole < to) {
            UNROLL for (int r = 0; r < ROWS; r++) weights[r] = last_weights(kind, row[r], whole, to - whole);
            STEP(whole)
        }
    }
#undef STEP
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int r = 0; r < ROWS; r++) sums[c * LANES + r] = acc[c * ROWS + r];
}

INLINE void block(int kind, int columns, const Rows *rows, const float *x, long stride, long size, vec *sums) {
    vec acc[COLUMNS * LANES];
    long stretch = kind == FLOAT32 && columns == COLUMNS ? STRETCH : size;
    for (long from = 0; from < size; from += stretch)
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
BLOCKS(INT8)
BLOCKS(INT4)

// The sums of up to LANES rows with up to COLUMNS columns: a vector over the rows for each column.
static void sums_of(int kind, long columns, const Rows *rows, const float *x, long stride, long size, vec *sums) {
    while (columns) {
        int count = AT_ONCE(columns);
        switch (kind) {
            case FLOAT32: switch (count) { CASES(FLOAT32) } break;
            case BFLOAT16: switch (count) { CASES(BFLOAT16) } break;
            case INT8: switch (count) { CASES(INT8) } break;
            case INT4: switch (count) { CASES(INT4) } break;
        }
        columns -= count;
        x += count * stride;
        sums += count;
    }
}

INLINE long row_bytes(const Matrix *m) {
    switch (m->kind) {
        case FLOAT32: return 4 * m->columns;
        case BFLOAT16: return 2 * m->columns;
        case INT8: return m->columns;
        default: return PADDED(m->columns) / 2;
    }
}
