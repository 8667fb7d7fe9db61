// Dot products of panels of int8 and int4 with columns in fixed point.
#pragma once
#include "fixed_point.h"

#if BYTE_PRODUCTS

#define COLUMNS_PER_TILE 8  // in a register tile

INLINE ivec dot4(ivec sum, __m512i unsigned_bytes, const char *four) {  // signed ones, for every lane
    int32_t bytes;
    memcpy(&bytes, four, 4);
    return (ivec)_mm512_dpbusd_epi32((__m512i)sum, unsigned_bytes, _mm512_set1_epi32(bytes));
}

// A sum of q times whole numbers, from its sums over the planes.
INLINE ivec sum_of_planes(const ivec *planes) { return (planes[1] << 8) + planes[0]; }

// sums[c]: those of the rows of a panel of int8 with column c, but for the rows' scales.
INLINE void int8_dots(int columns, const Panel *panel, const Fixed *const *x, long size, vec *sums) {
    const int chains = columns == 1 ? 2 : 1;  // that do not wait for each other
    UNROLL for (int c = 0; c < columns; c++) sums[c] = splat(0);
    for (long k = 0; k < size; k += STEP) {
        const char *from = panel->values + k * PANEL;
        ivec acc[2 * COLUMNS_PER_TILE * PLANES];
        UNROLL for (int line = 0; line < STEP * PANEL; line += 64) prefetch(from + line + PREFETCH_DISTANCE);
        UNROLL for (int i = 0; i < chains * columns * PLANES; i++)
            acc[i] = isplat(i % PLANES || i / PLANES >= columns ? 0 : starts(x[i / PLANES], size)[k / STEP]);
        UNROLL for (int u = 0; u < STEP / 4; u++) {  // as bytes from 1 to 255: 128 is added
            __m512i weights = _mm512_xor_si512(_mm512_loadu_si512(from + u * UNIT_BYTES), _mm512_set1_epi8(-128));
            UNROLL for (int i = 0; i < columns * PLANES; i++) {
                ivec *sum = &acc[u % chains * columns * PLANES + i];
                *sum = dot4(*sum, weights, plane_at(x[i / PLANES], i % PLANES, k) + 4 * u);
            }
        }
        vec factors = factors_at(panel, k / STEP, 0);
        UNROLL for (int c = 0; c < columns; c++) {
            ivec total = sum_of_planes(acc + c * PLANES);
            if (chains == 2) total += sum_of_planes(acc + (columns + c) * PLANES);
            sums[c] += floats(total) * factors;
        }
    }
    UNROLL for (int c = 0; c < columns; c++) sums[c] *= x[c]->step;
}

// The same for a panel of int4, with the groups' scales and offsets.
INLINE void int4_dots(int columns, const Panel *panel, const Fixed *const *x, long size, vec *sums) {
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL for (int c = 0; c < columns; c++) sums[c] = splat(0);
    for (long g = 0; g < GROUPS_OF(size); g++) {
        const char *from = panel->values + g * GROUP_BYTES;
        __m512i nibbles[GROUP / 4];
        UNROLL for (int line = 0; line < GROUP_BYTES; line += 64) prefetch(from + line + PREFETCH_DISTANCE);
        UNROLL for (int u = 0; u < GROUP / 8; u++) {
            __m512i bytes = _mm512_loadu_si512(from + u * UNIT_BYTES);
            nibbles[u] = _mm512_and_si512(bytes, low);
            nibbles[u + GROUP / 8] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
        }
        vec scales = load_float16(panel->scales + 2 * g * PANEL), offsets = load_float16(panel->offsets + 2 * g * PANEL);
        UNROLL for (int c = 0; c < columns; c++) {
            ivec totals[PLANES] = {isplat(0), isplat(0)};
            UNROLL for (int u = 0; u < GROUP / 4; u++)
                UNROLL for (int p = 0; p < PLANES; p++)
                    totals[p] = dot4(totals[p], nibbles[u], plane_at(x[c], p, g * GROUP) + 4 * u);
            sums[c] += floats(sum_of_planes(totals)) * scales;
            sums[c] += splat(group_sums(x[c], size)[g]) * offsets;
        }
    }
    UNROLL for (int c = 0; c < columns; c++) sums[c] *= x[c]->step;
}

#define BYTE_DOTS(columns)                                                                               \
    NOINLINE void int8_dots_##columns(const Panel *panel, const Fixed *const *x, long size, vec *sums) { \
        int8_dots(columns, panel, x, size, sums);                                                        \
    }                                                                                                    \
    NOINLINE void int4_dots_##columns(const Panel *panel, const Fixed *const *x, long size, vec *sums) { \
        int4_dots(columns, panel, x, size, sums);                                                        \
    }
BYTE_DOTS(1)
BYTE_DOTS(2)
BYTE_DOTS(4)
BYTE_DOTS(8)

#define BYTE_CASE(kind, count)                                   \
    case count:                                                  \
        kind##_dots_##count(panel, some, size, sums + c);        \
        break;
#define BYTE_CASES(kind) BYTE_CASE(kind, 1) BYTE_CASE(kind, 2) BYTE_CASE(kind, 4) BYTE_CASE(kind, 8)

// The sums of a panel with columns `bytes` apart.
static void byte_dots(int kind, const Panel *panel, long columns, const char *x, long bytes, long size, vec *sums) {
    for (long c = 0, count; c < columns; c += count) {
        const Fixed *some[COLUMNS_PER_TILE];
        count = COLUMNS_PER_TILE;
        while (count > columns - c) count /= 2;
        for (long i = 0; i < count; i++) some[i] = (const Fixed *)(x + (c + i) * bytes);
        if (kind == INT8) switch (count) { BYTE_CASES(int8) }
        else switch (count) { BYTE_CASES(int4) }
    }
}

#undef BYTE_CASE
#undef BYTE_CASES

#endif
