// Dot products of int8 and int4 rows with columns in fixed point: up to LANES rows, and one column or two.
#pragma once
#include "fixed_point.h"

#define AT_HAND 8  // columns that rows are read for together

#if BYTE_PRODUCTS

INLINE ivec dot4(ivec sum, __m512i unsigned_bytes, const char *signed_bytes) {
    return (ivec)_mm512_dpbusd_epi32((__m512i)sum, unsigned_bytes, _mm512_loadu_si512(signed_bytes));
}

// Lane 4 * i + j: the sum of lanes 4 * i ... 4 * i + 3 of value j.
INLINE ivec sum_within(const ivec *values) {
    __m512i a = (__m512i)values[0], b = (__m512i)values[1], c = (__m512i)values[2], d = (__m512i)values[3];
    ivec ab = (ivec)_mm512_unpacklo_epi32(a, b) + (ivec)_mm512_unpackhi_epi32(a, b);
    ivec cd = (ivec)_mm512_unpacklo_epi32(c, d) + (ivec)_mm512_unpackhi_epi32(c, d);
    return (ivec)_mm512_unpacklo_epi64((__m512i)ab, (__m512i)cd) + (ivec)_mm512_unpackhi_epi64((__m512i)ab, (__m512i)cd);
}

// Lane 4 * i + j: the sum of lanes j, 4 + j, 8 + j and 12 + j of value i.
#define SUM_ACROSS(type, name)                                                                                      \
    INLINE type name(const type *values) {                                                                          \
        __m512i a = (__m512i)values[0], b = (__m512i)values[1], c = (__m512i)values[2], d = (__m512i)values[3];     \
        type ab = (type)_mm512_shuffle_i32x4(a, b, 0x44) + (type)_mm512_shuffle_i32x4(a, b, 0xee);                  \
        type cd = (type)_mm512_shuffle_i32x4(c, d, 0x44) + (type)_mm512_shuffle_i32x4(c, d, 0xee);                  \
        return (type)_mm512_shuffle_i32x4((__m512i)ab, (__m512i)cd, 0x88) +                                         \
               (type)_mm512_shuffle_i32x4((__m512i)ab, (__m512i)cd, 0xdd);                                          \
    }
SUM_ACROSS(ivec, sum_across)
SUM_ACROSS(vec, sum_floats_across)

INLINE __m512i some_bytes(const char *from, long count) {
    return count >= STEP_BYTES ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8((1ULL << count) - 1, from);
}

INLINE void rows_from(const Rows *rows, long first, const char **row) {
    UNROLL for (int r = 0; r < ROWS; r++)
        row[r] = rows->values + (first + r < rows->count ? first + r : rows->count - 1) * rows->pitch;
}

// Four rows of int8: sums[c * PLANES + p] has lanes 4 * i + r, four parts i of row r's sum with plane p of column c.
INLINE void int8_tile(int columns, const Rows *rows, long first, const Fixed *const *x, long size, ivec *sums) {
    const char *row[ROWS];
    ivec acc[2 * PLANES * ROWS];
    rows_from(rows, first, row);
    UNROLL for (int i = 0; i < columns * PLANES * ROWS; i++) acc[i] = isplat(0);
    for (long k = 0; k < size; k += STEP_BYTES) {
        __m512i weights[ROWS];
        UNROLL for (int line = 0; line < ROWS * STEP_BYTES; line += 64)
            __builtin_prefetch(row[0] + k * ROWS + line + AHEAD, 0, 2);
        UNROLL for (int r = 0; r < ROWS; r++)  // as bytes from 1 to 255: 128 is added
            weights[r] = _mm512_xor_si512(some_bytes(row[r] + k, size - k), _mm512_set1_epi8(-128));
        UNROLL for (int i = 0; i < columns * PLANES; i++)
            UNROLL for (int r = 0; r < ROWS; r++)
                acc[i * ROWS + r] = dot4(acc[i * ROWS + r], weights[r],
                                         (const char *)(x[i / PLANES] + 1) + k * PLANES + i % PLANES * STEP_BYTES);
    }
    UNROLL for (int i = 0; i < columns * PLANES; i++) sums[i] = sum_within(acc + i * ROWS);
}

// The rows' scales or offsets for a span: lane 4 * g + r is that of group g of row r.
INLINE vec of_span(const float *numbers, long first, long groups, long span) {
    const float *from = numbers + first * groups + 4 * span;
    __m512 rows = _mm512_castps128_ps512(_mm_loadu_ps(from));
    rows = _mm512_insertf32x4(rows, _mm_loadu_ps(from + groups), 1);
    rows = _mm512_insertf32x4(rows, _mm_loadu_ps(from + 2 * groups), 2);
    rows = _mm512_insertf32x4(rows, _mm_loadu_ps(from + 3 * groups), 3);
    const __m512i turned = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return (vec)_mm512_permutexvar_ps(turned, rows);
}

// Four rows of int4: sums[c] has lanes 4 * i + r, row r's sum over the groups i, i + 4, ... with column c.
INLINE void int4_tile(int columns, const Rows *rows, long first, const Fixed *const *x, long size, vec *sums) {
    const char *row[ROWS];
    const __m512i low = _mm512_set1_epi8(15);
    const long groups = PADDED(size) / GROUP;
    rows_from(rows, first, row);
    UNROLL for (int c = 0; c < columns; c++) sums[c] = splat(0);
    for (long b = 0; b < SPANS_OF(size); b++) {
        __m512i nibbles[2 * ROWS];
        UNROLL for (int line = 0; line < ROWS * STEP_BYTES; line += 64)
            __builtin_prefetch(row[0] + b * ROWS * STEP_BYTES + line + AHEAD, 0, 2);
        UNROLL for (int r = 0; r < ROWS; r++) {
            __m512i bytes = some_bytes(row[r] + b * STEP_BYTES, groups * (GROUP / 2) - b * STEP_BYTES);
            nibbles[r] = _mm512_and_si512(bytes, low);
            nibbles[ROWS + r] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
        }
        vec scales = of_span(rows->scales, first, groups, b), offsets = of_span(rows->offsets, first, groups, b);
        UNROLL for (int c = 0; c < columns; c++) {
            const char *planes = (const char *)(x[c] + 1) + b * SPAN * PLANES;
            ivec acc[ROWS];
            UNROLL for (int r = 0; r < ROWS; r++) {
                acc[r] = isplat(0);
                UNROLL for (int p = PLANES - 1; p >= 0; p--) {
                    ivec sum = dot4(isplat(0), nibbles[r], planes + p * STEP_BYTES);
                    sum = dot4(sum, nibbles[ROWS + r], planes + (PLANES + p) * STEP_BYTES);
                    acc[r] = p == PLANES - 1 ? sum : (acc[r] << 8) + sum;
                }
            }
            sums[c] += floats(sum_within(acc)) * scales;
            sums[c] += load(group_sums(x[c], size) + b * LANES) * offsets;
        }
    }
}

// The sums of up to LANES rows with one or two columns: lane r is that of row r, but for the scale of int8.
#define FIXED_SUMS(columns)                                                                                         \
    APART void int8_sums_##columns(const Rows *rows, const Fixed *const *x, long size, vec *sums) {                 \
        ivec parts[columns * PLANES][LANES / ROWS], tile[columns * PLANES];                                         \
        for (long t = 0; t < LANES / ROWS; t++) {                                                                   \
            int8_tile(columns, rows, t * ROWS, x, size, tile);                                                      \
            UNROLL for (int i = 0; i < columns * PLANES; i++) parts[i][t] = tile[i];                                \
        }                                                                                                           \
        UNROLL for (int c = 0; c < columns; c++) {                                                                  \
            vec sum = splat(0);                                                                                     \
            UNROLL for (int p = PLANES - 1; p >= 0; p--)                                                            \
                sum = sum * 256 + floats(sum_across(parts[c * PLANES + p]) - 128 * x[c]->sums[p]);                  \
            sums[c] = sum * x[c]->step;                                                                             \
        }                                                                                                           \
    }                                                                                                               \
    APART void int4_sums_##columns(const Rows *rows, const Fixed *const *x, long size, vec *sums) {                 \
        vec parts[columns][LANES / ROWS], tile[columns];                                                            \
        for (long t = 0; t < LANES / ROWS; t++) {                                                                   \
            int4_tile(columns, rows, t * ROWS, x, size, tile);                                                      \
            UNROLL for (int c = 0; c < columns; c++) parts[c][t] = tile[c];                                         \
        }                                                                                                           \
        UNROLL for (int c = 0; c < columns; c++) sums[c] = sum_floats_across(parts[c]) * x[c]->step;                \
    }
FIXED_SUMS(1)
FIXED_SUMS(2)

static void byte_sums(int kind, const Rows *rows, long columns, const char *x, long bytes, long size, vec *sums) {
    for (long c = 0; c < columns; c += 2) {
        const Fixed *pair[2] = {(const Fixed *)(x + c * bytes), (const Fixed *)(x + (c + 1) * bytes)};
        bool both = c + 1 < columns;
        if (kind == INT8)
            (both ? int8_sums_2 : int8_sums_1)(rows, pair, size, sums + c);
        else
            (both ? int4_sums_2 : int4_sums_1)(rows, pair, size, sums + c);
    }
}

#endif
