// Dot products of panels of int8 and int4 with columns in fixed point.
#pragma once
#include "fixed_point.h"

#if BYTE_PRODUCTS

#define COLUMNS_PER_TILE (LANES == 16 ? 8 : 2)  // in a register tile, which has all of a panel's rows

// A sum of q times whole numbers, from its sums over the planes.
INLINE ivec sum_of_planes(const ivec *planes) { return (planes[1] << 8) + planes[0]; }

// sums[v * columns + c]: those of vector v of a panel's rows of int8 with column c, but for the rows' scales.
INLINE void int8_dots(int columns, const Panel *panel, const Fixed *const *x, long size, vec *sums, long stride) {
    const int chains = columns == 1 ? 2 : 1;  // that do not wait for each other
    vec totals[COLUMNS_PER_TILE][PANEL_VECTORS];
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int v = 0; v < PANEL_VECTORS; v++) totals[c][v] = splat(0);
    for (long k = 0; k < size; k += STEP) {
        const char *from = panel->values + k * PANEL;
        ivec acc[2][COLUMNS_PER_TILE][PANEL_VECTORS][PLANES];
        UNROLL for (int line = 0; line < STEP * PANEL; line += 64) prefetch(from + line + PREFETCH_DISTANCE);
        UNROLL for (int c = 0; c < columns; c++)
            UNROLL for (int v = 0; v < PANEL_VECTORS; v++) {
                acc[0][c][v][0] = isplat(WEIGHT_OFFSET ? starts(x[c], size)[k / STEP] : 0);
                acc[1][c][v][0] = acc[0][c][v][1] = acc[1][c][v][1] = isplat(0);
            }
        UNROLL for (int u = 0; u < STEP / 4; u++) {
            bytes weights[PANEL_VECTORS];
            UNROLL for (int v = 0; v < PANEL_VECTORS; v++)  // x86: from 1 to 255
                weights[v] = (bytes)load(from + u * UNIT_BYTES + v * 4 * LANES) ^ WEIGHT_OFFSET;
            UNROLL for (int c = 0; c < columns; c++)
                UNROLL for (int p = 0; p < PLANES; p++)
                    UNROLL for (int v = 0; v < PANEL_VECTORS; v++) {
                        ivec *sum = &acc[u % chains][c][v][p];
                        *sum = dot4(*sum, weights[v], plane_at(x[c], p, k) + 4 * u);
                    }
        }
        UNROLL for (int v = 0; v < PANEL_VECTORS; v++) {
            vec factors = factors_at(panel, k / STEP, v * LANES);
            UNROLL for (int c = 0; c < columns; c++) {
                ivec total = sum_of_planes(acc[0][c][v]);
                if (chains == 2) total += sum_of_planes(acc[1][c][v]);
                totals[c][v] += floats(total) * factors;
            }
        }
    }
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int v = 0; v < PANEL_VECTORS; v++) sums[v * stride + c] = totals[c][v] * x[c]->step;
}

// The same for a panel of int4, with the groups' scales and offsets.
INLINE void int4_dots(int columns, const Panel *panel, const Fixed *const *x, long size, vec *sums, long stride) {
    vec totals[COLUMNS_PER_TILE][PANEL_VECTORS];
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int v = 0; v < PANEL_VECTORS; v++) totals[c][v] = splat(0);
    for (long g = 0; g < GROUPS_OF(size); g++) {
        const char *from = panel->values + g * GROUP_BYTES;
        UNROLL for (int line = 0; line < GROUP_BYTES; line += 64) prefetch(from + line + PREFETCH_DISTANCE);
        UNROLL for (int v = 0; v < PANEL_VECTORS; v++) {
            bytes nibbles[GROUP / 4];
            UNROLL for (int u = 0; u < GROUP / 8; u++) {
                bytes both = (bytes)load(from + u * UNIT_BYTES + v * 4 * LANES);
                nibbles[u] = both & 15;
                nibbles[u + GROUP / 8] = both >> 4;
            }
            long halves = 2 * (g * PANEL + v * LANES);
            vec scales = load_float16(panel->scales + halves), offsets = load_float16(panel->offsets + halves);
            UNROLL for (int c = 0; c < columns; c++) {
                ivec planes[PLANES] = {isplat(0), isplat(0)};
                UNROLL for (int u = 0; u < GROUP / 4; u++)
                    UNROLL for (int p = 0; p < PLANES; p++)
                        planes[p] = dot4(planes[p], nibbles[u], plane_at(x[c], p, g * GROUP) + 4 * u);
                totals[c][v] += floats(sum_of_planes(planes)) * scales;
                totals[c][v] += splat(group_sums(x[c], size)[g]) * offsets;
            }
        }
    }
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int v = 0; v < PANEL_VECTORS; v++) sums[v * stride + c] = totals[c][v] * x[c]->step;
}

#define BYTE_DOTS(columns)                                                                                            \
    NOINLINE void int8_dots_##columns(const Panel *panel, const Fixed *const *x, long size, vec *sums, long stride) { \
        int8_dots(columns, panel, x, size, sums, stride);                                                             \
    }                                                                                                                 \
    NOINLINE void int4_dots_##columns(const Panel *panel, const Fixed *const *x, long size, vec *sums, long stride) { \
        int4_dots(columns, panel, x, size, sums, stride);                                                             \
    }
#define BYTE_CASE(kind, count)                                   \
    case count:                                                  \
        kind##_dots_##count(panel, some, size, sums + c, columns); \
        break;
BYTE_DOTS(1)
BYTE_DOTS(2)
#if LANES == 16
BYTE_DOTS(4)
BYTE_DOTS(8)
#define BYTE_CASES(kind) BYTE_CASE(kind, 1) BYTE_CASE(kind, 2) BYTE_CASE(kind, 4) BYTE_CASE(kind, 8)
#else
#define BYTE_CASES(kind) BYTE_CASE(kind, 1) BYTE_CASE(kind, 2)
#endif

// sums[v * columns + c]: those of vector v of a panel's rows with column c, of columns `distance` bytes apart.
static void byte_dots(int kind, const Panel *panel, long columns, const char *x, long distance, long size, vec *sums) {
    for (long c = 0, count; c < columns; c += count) {
        const Fixed *some[COLUMNS_PER_TILE];
        count = COLUMNS_PER_TILE;
        while (count > columns - c) count /= 2;
        for (long i = 0; i < count; i++) some[i] = (const Fixed *)(x + (c + i) * distance);
        if (kind == INT8) switch (count) { BYTE_CASES(int8) }
        else switch (count) { BYTE_CASES(int4) }
    }
}

#undef BYTE_CASE
#undef BYTE_CASES

#endif
