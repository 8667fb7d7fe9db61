// Rows of int8 and int4 as they lie in memory: in panels of 16 rows, of which a vector of 64 bytes holds 4 bytes each.
// So weights are one stream, and a lane of a sum is a row.
#pragma once
#include "dots.h"

#define PANEL 16                // rows; those behind a matrix's last are zeros
#define UNIT_BYTES (4 * PANEL)  // 4 bytes of each row: 4 numbers of int8, or 4 and, in the high nibbles, the 4 that
                                // stand 16 further on in their group of int4
#define STEP 64                 // numbers of a row of int8 that share a factor of its scale; rows are filled up to it
#define STEPS_OF(size) (((size) + STEP - 1) / STEP)
#define GROUPS_OF(size) (((size) + GROUP - 1) / GROUP)
#define GROUP_BYTES (GROUP / 2 * PANEL)  // of a panel of int4
#define PANEL_VECTORS (PANEL / LANES)  // of a panel's rows
#define PANEL_COLUMNS 16               // columns that a panel is read for
#define FACTORS_AHEAD 512              // bytes of them that are fetched before they are needed
#define LEAST_STEP 0x1p-100f           // in which the numbers of a column are counted
#define ROUND 12582912.0f              // 1.5 * 2**23: added to a number, its lowest bits are the nearest whole number

typedef struct {
    const char *values, *scales, *offsets;  // int4: scales and offsets float16 (groups, PANEL)
    const uint8_t *factors;                 // int8: (steps, PANEL), or null
} Panel;

INLINE long panel_bytes(const Matrix *m) {
    return m->kind == INT8 ? STEPS_OF(m->columns) * STEP * PANEL : GROUPS_OF(m->columns) * GROUP_BYTES;
}

INLINE Panel panel_of(const Matrix *m, long row) {
    long panel = row / PANEL, halves = 2 * panel * GROUPS_OF(m->columns) * PANEL;
    const char *values = (const char *)m->values + panel * panel_bytes(m);
    if (m->kind == INT8) return (Panel){values, NULL, NULL, m->factors ? m->factors + panel * STEPS_OF(m->columns) * PANEL : NULL};
    return (Panel){values, (const char *)m->scales + halves, (const char *)m->offsets + halves, NULL};
}

// The factors of step `step` of a panel's rows from `row` on.
INLINE vec factors_at(const Panel *panel, long step, long row) {
    if (!panel->factors) return splat(1);
    const uint8_t *from = panel->factors + step * PANEL + row;
    prefetch((const char *)from + FACTORS_AHEAD);
    return floats(widen_uint8(from));
}

// Element e of group g of part `part` of a panel's rows. int8 stays without its scale, which comes after the sum.
INLINE vec element_at(int kind, const Panel *panel, int part, long g, int e) {
    const char *lanes = panel->values + 4 * LANES * part;
    if (kind == INT8) {
        ivec unit = (ivec)load(lanes + (g * (GROUP / 4) + e / 4) * UNIT_BYTES);
        return floats(unit << (24 - 8 * (e % 4)) >> 24) * factors_at(panel, g * GROUP / STEP, part * LANES);
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
