// Products of matrices with columns of activations, in float32 or in fixed point: rows in, sums, scales and biases out.
#pragma once
#include "tiles.h"

#define TASK_ROWS 16             // rows of a matrix in a task: whole vectors, so that tasks share none
#define PANEL_ROWS 48            // the same where columns are many, and rows are read many times
#define MOST_BYTES (1L << 16)    // of a row of int8: their products with a plane fit an int32
#define SCALES(columns) (2 * LANES * (PADDED(columns) / GROUP) + LANES)  // numbers that rows_of takes

APART void widen_halves(const char *from, float *to, long count) {
    long whole = count / LANES * LANES;
    for (long i = 0; i < whole; i += LANES) store(to + i, load_float16(from + 2 * i));
    if (whole == count) return;
    char bytes[2 * LANES] = {0};
    memcpy(bytes, from + 2 * whole, 2 * (count - whole));
    store_some(to + whole, load_float16(bytes), count - whole);
}

// Rows from `first` on; `scratch` takes SCALES(columns) numbers.
static Rows rows_of(const Matrix *m, long first, long count, float *scratch) {
    long bytes = row_bytes(m), groups = PADDED(m->columns) / GROUP;
    Rows rows = {(const char *)m->values + first * bytes, count, bytes, scratch, scratch + LANES * groups};
    if (m->kind == INT4) {
        for (long line = 0; line < 2 * count * groups; line += 64) {
            __builtin_prefetch((const char *)m->scales + 2 * (first + 2 * LANES) * groups + line);
            __builtin_prefetch((const char *)m->offsets + 2 * (first + 2 * LANES) * groups + line);
        }
        float *offsets = scratch + LANES * groups;
        widen_halves((const char *)m->scales + 2 * first * groups, scratch, count * groups);
        memset(scratch + count * groups, 0, 4 * sizeof *scratch);  // they are read four at a time
        widen_halves((const char *)m->offsets + 2 * first * groups, offsets, count * groups);
        memset(offsets + count * groups, 0, 4 * sizeof *offsets);
    }
    return rows;
}

// Row `r` as float32, zeros up to PADDED(columns). int8 stays without its scale, which comes after the sum.
APART void expand(const Matrix *m, const Rows *rows, long r, float *to) {
    long groups = PADDED(m->columns) / GROUP, whole = m->columns / LANES * LANES;
    const char *row = rows->values + r * rows->pitch;
    if (m->kind == INT4) {
        for (long g = 0; g < groups; g++)
            UNROLL for (int part = 0; part < GROUP / LANES; part++)
                store(to + g * GROUP + part * LANES, nibbles_at(row + g * (GROUP / 2), part, rows->scales[r * groups + g],
                                                                rows->offsets[r * groups + g]));
        return;
    }
    for (long k = 0; k < whole; k += LANES) store(to + k, weights_at(m->kind, row, k));
    if (whole < m->columns) store(to + whole, last_weights(m->kind, row, whole, m->columns - whole));
    for (long k = (m->columns + LANES - 1) / LANES * LANES; k < groups * GROUP; k += LANES) store(to + k, splat(0));
}

// out[c * stride + r] = (or +=) sums[c][r] with the rows' scales and biases, for `count` rows from `first` on.
APART void finish(const Matrix *m, long first, long count, long columns, const vec *sums, float *out, long stride, bool add) {
    vec scale = m->kind == INT8 ? load_some((const char *)m->scales + 4 * first, count) : splat(1);
    vec bias = m->bias ? load_some((const char *)(m->bias + first), count) : splat(0);
    for (long c = 0; c < columns; c++) {
        float *to = out + c * stride;
        vec value = sums[c] * scale + bias;
        if (add) value += load_some(to, count);
        store_some(to, value, count);
    }
}

// Whether a matrix is multiplied with columns in fixed point, and not in float32.
INLINE bool in_fixed_point(const Matrix *m) { return BYTE_PRODUCTS && m->kind >= INT8 && m->columns <= MOST_BYTES; }

typedef struct {  // columns of one source: in float32 with zeros behind their end, or in fixed point, one by one or in bands
    const char *x;
    long bytes, count;  // bytes from one to the next
    bool tiled;         // in bands
} Columns;

typedef struct {  // what a product is written to, for row `first` and the first column on
    float *out;
    long stride;
    bool add;
} Target;

INLINE float *column_of(Target to, long c, long r) { return to.out + c * to.stride + r; }

#if BYTE_PRODUCTS
static void multiply_fixed(const Matrix *m, long first, long count, Columns columns, Target to, float *scratch) {
    vec sums[AT_HAND];
    long groups = PADDED(m->columns) / GROUP;
    GroupPanel *panels = m->kind == INT4 && columns.count > AT_HAND ? (GroupPanel *)(scratch + SCALES(m->columns)) : NULL;
    for (long r = 0; panels && r < count; r += LANES) {
        Rows rows = rows_of(m, first + r, min(count - r, LANES), scratch);
        unpack_rows(&rows, m->columns, panels + r / LANES * groups);
    }
    for (long from = 0; from < columns.count; from += AT_HAND) {
        long some = min(columns.count - from, AT_HAND);
        const char *x = columns.x + from * columns.bytes;
        for (long r = 0; r < count; r += LANES) {
            long left = min(count - r, LANES);
            if (panels)
                panel_sums(panels + r / LANES * groups, some, x, columns.bytes, m->columns, sums);
            else {
                Rows rows = rows_of(m, first + r, left, scratch);
                byte_sums(m->kind, &rows, some, x, columns.bytes, m->columns, sums);
            }
            finish(m, first + r, left, some, sums, column_of(to, from, r), to.stride, to.add);
        }
    }
}
#endif

#if TILES
static void multiply_tiled(const Matrix *m, long first, long count, Columns columns, Target to, float *scratch) {
    vec sums[BAND];
    const char *tiled[PANEL_ROWS / LANES];
    char *memory = (char *)(scratch + SCALES(m->columns));
    for (long r = 0; r < count; r += LANES, memory += TILED_BYTES(m->columns)) {
        Rows rows = rows_of(m, first + r, min(count - r, LANES), scratch);
        tiled[r / LANES] = tiled_rows(m->kind, &rows, m->columns, memory);
    }
    for (long from = 0; from < columns.count; from += BAND) {
        const Band *band = (const Band *)(columns.x + from * columns.bytes);
        for (long r = 0; r < count; r += LANES) {
            (m->kind == INT8 ? int8_tile_sums : int4_tile_sums)(tiled[r / LANES], band, m->columns, sums);
            finish(m, first + r, min(count - r, LANES), min(columns.count - from, BAND), sums, column_of(to, from, r),
                   to.stride, to.add);
        }
    }
}
#endif

static void multiply_floats(const Matrix *m, long first, long count, Columns columns, Target to, float *scratch) {
    vec sums[COLUMNS];
    long size = PADDED(m->columns), stride = columns.bytes / sizeof(float);
    const float *x = (const float *)columns.x;
    // Rows that are read more than once are widened once, into a panel.
    float *panel = columns.count > COLUMNS && m->kind != FLOAT32 ? scratch + SCALES(size) : NULL;
    if (panel)
        for (long r = 0; r < count; r += LANES) {
            Rows rows = rows_of(m, first + r, min(count - r, LANES), scratch);
            for (long i = 0; i < rows.count; i++) expand(m, &rows, i, panel + (r + i) * size);
        }
    for (long c = 0; c < columns.count; c += COLUMNS) {
        long some = min(columns.count - c, COLUMNS);
        for (long r = 0; r < count; r += LANES) {
            long left = min(count - r, LANES);
            Rows rows = panel ? (Rows){(const char *)(panel + r * size), left, 4 * size, NULL, NULL}
                              : rows_of(m, first + r, left, scratch);
            sums_of(panel ? FLOAT32 : (int)m->kind, some, &rows, x + c * stride, stride, m->columns, sums);
            finish(m, first + r, left, some, sums, column_of(to, c, r), to.stride, to.add);
        }
    }
}

// Rows `first` .. `first` + `count` of a matrix times columns. `scratch` takes SCALES + count * PADDED(columns of m)
// numbers.
static void multiply(const Matrix *m, long first, long count, Columns columns, Target to, float *scratch) {
#if TILES
    if (columns.tiled) {
        multiply_tiled(m, first, count, columns, to, scratch);
        return;
    }
#endif
#if BYTE_PRODUCTS
    if (in_fixed_point(m)) {
        multiply_fixed(m, first, count, columns, to, scratch);
        return;
    }
#endif
    multiply_floats(m, first, count, columns, to, scratch);
}
