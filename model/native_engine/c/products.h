// Products of matrices with columns of activations, in float32 or in fixed point: rows in, sums, scales and biases out.
#pragma once
#include "tiles.h"
#include "word_tiles.h"

#define ROWS_PER_TASK 16               // of a matrix: whole vectors, so that tasks share none
#define ROWS_PER_TASK_MANY_COLUMNS 48  // the same where columns are many, and rows are read many times
#define FEW_COLUMNS 16                 // of float32, that stay in the cache while rows are read once
#define MAX_INT8_COLUMNS (1L << 16)    // of a matrix: a row's products with a plane fit an int32

INLINE long row_bytes(const Matrix *m) { return bytes_of(m->kind) * m->columns; }

// Rows of float32 or bfloat16 from `first` on.
INLINE WeightRows rows_of(const Matrix *m, long first, long count) {
    return (WeightRows){(const char *)m->values + first * row_bytes(m), count, row_bytes(m)};
}

// Row `row` as float32, zeros up to PADDED(columns), without the scale of int8.
NOINLINE void row_as_float32(const Matrix *m, long row, float *to) {
    if (m->kind >= INT8) {
        panel_row_as_float32(m, row, to);
        return;
    }
    const char *from = rows_of(m, row, 1).values;
    long whole = m->columns / LANES * LANES;
    for (long k = 0; k < whole; k += LANES) {
        if (k % (64 / bytes_of(m->kind)) == 0) prefetch(from + k * bytes_of(m->kind) + PREFETCH_DISTANCE);
        store(to + k, weights_at(m->kind, from, k));
    }
    if (whole < m->columns) store(to + whole, last_weights(m->kind, from, whole, m->columns - whole));
    for (long k = (m->columns + LANES - 1) / LANES * LANES; k < PADDED(m->columns); k += LANES) store(to + k, splat(0));
}

// out[c * stride + r] = (or +=) sums[c][r] with the rows' scales and biases, for `count` rows from `first` on.
NOINLINE void write_products(const Matrix *m, long first, long count, long columns, const vec *sums, float *out, long stride,
                             bool add) {
    vec scale = m->kind == INT8 ? load_some((const char *)m->scales + 4 * first, count) : splat(1);
    vec bias = m->bias ? load_some((const char *)(m->bias + first), count) : splat(0);
    for (long c = 0; c < columns; c++) {
        float *to = out + c * stride;
        vec value = sums[c] * scale + bias;
        if (add) value += load_some(to, count);
        store_some(to, value, count);
    }
}

// How a matrix is multiplied: with columns of float32, or, in fixed point, with planes of bytes or with words.
INLINE bool takes_floats(const Matrix *m) { return m->kind < INT8; }
INLINE bool takes_bytes(const Matrix *m) { return BYTE_PRODUCTS && m->kind >= INT8 && m->columns <= MAX_INT8_COLUMNS; }

typedef struct {  // columns of one source: in float32 with zeros behind their end, as Fixed or as words
    const char *x;
    long bytes, count;  // bytes from one to the next
    bool tiled;         // to be multiplied in tiles
} ActivationColumns;

typedef struct {  // what a product is written to, for row `first` and the first column on
    float *out;
    long stride;
    bool add;
} Target;

INLINE float *column_of(Target to, long c, long r) { return to.out + c * to.stride + r; }

// Rows in panels, whose columns are taken PANEL_COLUMNS at a time. `scratch` takes panels as words, unpacked once where
// they are read more than once.
static void multiply_panels(const Matrix *m, long first, long count, ActivationColumns columns, Target to, char *scratch) {
    vec sums[PANEL_VECTORS * PANEL_COLUMNS];
    bool unpacked = columns.count > PANEL_COLUMNS && !takes_bytes(m);
    for (long r = 0; unpacked && r < count; r += PANEL) {
        Panel panel = panel_of(m, first + r);
        char *words = scratch + r / PANEL * PANEL_WORDS(m->columns);
        if (m->kind == INT8) unpack_words(INT8, &panel, m->columns, words);
        else unpack_words(INT4, &panel, m->columns, words);
    }
    for (long from = 0; from < columns.count; from += PANEL_COLUMNS) {
        long some = min(columns.count - from, PANEL_COLUMNS);
        const char *x = columns.x + from * columns.bytes;
        for (long r = 0; r < count; r += PANEL) {
            Panel panel = panel_of(m, first + r);
            const char *words = unpacked ? scratch + r / PANEL * PANEL_WORDS(m->columns) : NULL;
#if BYTE_PRODUCTS
            if (takes_bytes(m))
                byte_dots(m->kind, &panel, some, x, columns.bytes, m->columns, sums);
            else
#endif
                word_dots(m->kind, &panel, words, some, x, columns.bytes, m->columns, sums);
            for (long p = 0; p < PANEL_VECTORS && r + p * LANES < count; p++)
                write_products(m, first + r + p * LANES, min(count - r - p * LANES, LANES), some, sums + p * some,
                       column_of(to, from, r + p * LANES), to.stride, to.add);
        }
    }
}

#if TILES
// The same in tiles. `scratch` takes the panels of int4, unpacked.
static void multiply_tiled(const Matrix *m, long first, long count, ActivationColumns columns, Target to, float *scratch) {
    vec sums[PANEL_COLUMNS];
    char *unpacked = (char *)scratch;
    for (long r = 0; r < count && m->kind == INT4; r += PANEL) {
        Panel panel = panel_of(m, first + r);
        unpack_panel(&panel, m->columns, unpacked + r / PANEL * UNPACKED(m->columns));
    }
    for (long from = 0; from < columns.count; from += PANEL_COLUMNS) {
        long some = min(columns.count - from, PANEL_COLUMNS);
        const char *x = columns.x + from * columns.bytes;
        set_tiles(some);
        for (long r = 0; r < count; r += PANEL) {
            Panel panel = panel_of(m, first + r);
            if (m->kind == INT8)
                int8_tile_sums(&panel, some, x, columns.bytes, m->columns, sums);
            else
                int4_tile_sums(&panel, unpacked + r / PANEL * UNPACKED(m->columns), some, x, columns.bytes, m->columns, sums);
            write_products(m, first + r, min(count - r, PANEL), some, sums, column_of(to, from, r), to.stride, to.add);
        }
    }
}
#endif

// Up to LANES rows of float32 or bfloat16 times columns.
INLINE void multiply_block(const Matrix *m, int kind, const WeightRows *rows, long first, ActivationColumns columns, Target to) {
    vec sums[NR];
    long stride = columns.bytes / sizeof(float);
    for (long c = 0, some; c < columns.count; c += some) {
        some = COLUMNS_AT_ONCE(columns.count - c);
        dot_rows(kind, some, rows, (const float *)columns.x + c * stride, stride, m->columns, sums);
        write_products(m, first, rows->count, some, sums, column_of(to, c, 0), to.stride, to.add);
    }
}

// Rows of float32 or bfloat16. Few columns stay in the cache, and every row is read once; of many NR at a time do, and
// the rows of the task, for which `scratch` takes those of bfloat16, widened once.
static void multiply_rows(const Matrix *m, long first, long count, ActivationColumns columns, Target to, float *scratch) {
    bool many = columns.count > FEW_COLUMNS, wide = many && m->kind != FLOAT32;
    long size = PADDED(m->columns), at_once = many ? NR : columns.count;
    for (long c = 0; c < columns.count; c += at_once) {
        ActivationColumns some = {columns.x + c * columns.bytes, columns.bytes, min(columns.count - c, at_once), false};
        int kind = wide || c ? CACHED : (int)m->kind;
        for (long r = 0; r < count; r += LANES) {
            long left = min(count - r, LANES);
            WeightRows rows = rows_of(m, first + r, left);
            if (wide) rows = (WeightRows){(const char *)(scratch + r * size), left, 4 * size};
            for (long i = r; wide && c == 0 && i < r + left; i++) row_as_float32(m, first + i, scratch + i * size);
            multiply_block(m, kind, &rows, first + r, some, (Target){column_of(to, c, r), to.stride, to.add});
        }
    }
}

// `count` rows of a matrix from `first` on, where a panel may begin, times columns. `scratch` takes `count` rows as
// float32, PANEL of them at least.
static void multiply(const Matrix *m, long first, long count, ActivationColumns columns, Target to, float *scratch) {
#if TILES
    if (columns.tiled) {
        multiply_tiled(m, first, count, columns, to, scratch);
        return;
    }
#endif
    if (m->kind >= INT8)
        multiply_panels(m, first, count, columns, to, (char *)scratch);
    else
        multiply_rows(m, first, count, columns, to, scratch);
}
