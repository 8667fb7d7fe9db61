// Rows of int8 and int4 as they lie in memory: in panels of 16 rows, of which a vector of 64 bytes holds 4 bytes each.
// So weights are one stream, and a lane of a sum is a row. Here also their products with columns of float32.
#pragma once
#include "dots.h"

#define PANEL 16                // rows; those behind a matrix's last are zeros
#define UNIT_BYTES (4 * PANEL)  // 4 bytes of each row: 4 numbers of int8, or 4 and, in the high nibbles, the 4 that
                                // stand 16 further on in their group of int4
#define STEP 64                 // numbers of a row that int8 is filled up to
#define STEPS_OF(size) (((size) + STEP - 1) / STEP)
#define GROUPS_OF(size) (((size) + GROUP - 1) / GROUP)
#define GROUP_BYTES (GROUP / 2 * PANEL)  // of a panel of int4
#define PANEL_VECTORS (PANEL / LANES)  // of a panel's rows
#define PANEL_COLUMNS 16               // columns that a panel is read for
#define COLUMNS_PER_TILE (LANES == 16 ? 4 : 2)  // of those, columns in a register tile

typedef struct {
    const char *values, *scales, *offsets;  // int4: scales and offsets float16 (groups, PANEL)
} Panel;

INLINE long panel_bytes(const Matrix *m) {
    return m->kind == INT8 ? STEPS_OF(m->columns) * STEP * PANEL : GROUPS_OF(m->columns) * GROUP_BYTES;
}

INLINE Panel panel_of(const Matrix *m, long row) {
    long panel = row / PANEL, halves = 2 * panel * GROUPS_OF(m->columns) * PANEL;
    const char *values = (const char *)m->values + panel * panel_bytes(m);
    if (m->kind == INT8) return (Panel){values, NULL, NULL};
    return (Panel){values, (const char *)m->scales + halves, (const char *)m->offsets + halves};
}

// Element e of group g of part `part` of a panel's rows. int8 stays without its scale, which comes after the sum.
INLINE vec element_at(int kind, const Panel *panel, int part, long g, int e) {
    const char *lanes = panel->values + 4 * LANES * part;
    if (kind == INT8) {
        ivec unit = (ivec)load(lanes + (g * (GROUP / 4) + e / 4) * UNIT_BYTES);
        return floats(unit << (24 - 8 * (e % 4)) >> 24);
    }
    ivec unit = (ivec)load(lanes + g * GROUP_BYTES + e % 16 / 4 * UNIT_BYTES);
    vec nibble = floats(unit >> (8 * (e % 4) + 4 * (e / 16)) & 15);
    long halves = 2 * (g * PANEL + part * LANES);
    return nibble * load_float16(panel->scales + halves) + load_float16(panel->offsets + halves);
}

// Row `row` as float32, zeros up to PADDED(columns), without the scale of int8.
NOINLINE void panel_row_as_float32(const Matrix *m, long row, float *to) {
    Panel panel = panel_of(m, row);
    memset(to, 0, PADDED(m->columns) * sizeof *to);
    for (long g = 0; g < GROUPS_OF(m->columns); g++)
        UNROLL for (int e = 0; e < GROUP; e++)
            if (g * GROUP + e < m->columns) to[g * GROUP + e] = element_at(m->kind, &panel, row % PANEL / LANES, g, e)[row % LANES];
}

// Products with columns of float32, `stride` numbers apart with zeros behind their end. Even and odd elements are summed
// apart, not to wait for each other; sums[part * columns + c] are those of column c with part `part` of the panel's rows.

INLINE void prefetch_group(const Panel *panel, long g, int bytes) {
    UNROLL for (int line = 0; line < bytes; line += 64)
        __builtin_prefetch(panel->values + g * bytes + line + PREFETCH_DISTANCE, 0, 2);
}

INLINE void sums_of_one(int kind, int bytes, const Panel *panel, const float *x, long size, vec *sums) {
    vec acc[PANEL_VECTORS][2];
    UNROLL for (int p = 0; p < PANEL_VECTORS; p++) acc[p][0] = acc[p][1] = splat(0);
    for (long g = 0; g < GROUPS_OF(size); g++) {
        prefetch_group(panel, g, bytes);
        UNROLL for (int e = 0; e < GROUP; e++)
            UNROLL for (int p = 0; p < PANEL_VECTORS; p++)
                acc[p][e % 2] += element_at(kind, panel, p, g, e) * splat(x[g * GROUP + e]);
    }
    UNROLL for (int p = 0; p < PANEL_VECTORS; p++) sums[p] = acc[p][0] + acc[p][1];
}

// Adds the products of a group's elements with those of a few columns.
INLINE void add_group(int columns, vec (*weights)[GROUP], const float *x, long stride, vec (*sums)[PANEL_VECTORS][2]) {
    vec acc[COLUMNS_PER_TILE][PANEL_VECTORS][2];
    memcpy(acc, sums, columns * sizeof *acc);
    UNROLL for (int e = 0; e < GROUP; e++)
        UNROLL for (int c = 0; c < columns; c++) {
            vec value = splat(x[c * stride + e]);
            UNROLL for (int p = 0; p < PANEL_VECTORS; p++) acc[c][p][e % 2] += weights[p][e] * value;
        }
    memcpy(sums, acc, columns * sizeof *acc);
}

INLINE void sums_of_several(int kind, int bytes, const Panel *panel, long columns, const float *x, long stride, long size,
                            vec *sums) {
    vec acc[PANEL_COLUMNS][PANEL_VECTORS][2], weights[PANEL_VECTORS][GROUP];
    memset(acc, 0, sizeof acc);
    for (long g = 0; g < GROUPS_OF(size); g++) {
        prefetch_group(panel, g, bytes);
        UNROLL for (int e = 0; e < GROUP; e++)
            UNROLL for (int p = 0; p < PANEL_VECTORS; p++) weights[p][e] = element_at(kind, panel, p, g, e);
        const float *from = x + g * GROUP;
        long c = 0;
        for (; c + COLUMNS_PER_TILE <= columns; c += COLUMNS_PER_TILE)
            add_group(COLUMNS_PER_TILE, weights, from + c * stride, stride, acc + c);
        for (; c < columns; c++) add_group(1, weights, from + c * stride, stride, acc + c);
    }
    for (int p = 0; p < PANEL_VECTORS; p++)
        for (long c = 0; c < columns; c++) sums[p * columns + c] = acc[c][p][0] + acc[c][p][1];
}

#define PANEL_SUMS(kind, bytes)                                                                                    \
    NOINLINE void sums_of_one_##kind(const Panel *panel, const float *x, long size, vec *sums) {                   \
        sums_of_one(kind, bytes, panel, x, size, sums);                                                            \
    }                                                                                                              \
    NOINLINE void sums_of_several_##kind(const Panel *panel, long columns, const float *x, long stride, long size, \
                                      vec *sums) {                                                                 \
        sums_of_several(kind, bytes, panel, columns, x, stride, size, sums);                                       \
    }
PANEL_SUMS(INT8, GROUP * PANEL)
PANEL_SUMS(INT4, GROUP_BYTES)

static void panel_sums(int kind, const Panel *panel, long columns, const float *x, long stride, long size, vec *sums) {
    if (columns == 1)
        (kind == INT8 ? sums_of_one_INT8 : sums_of_one_INT4)(panel, x, size, sums);
    else
        (kind == INT8 ? sums_of_several_INT8 : sums_of_several_INT4)(panel, columns, x, stride, size, sums);
}
