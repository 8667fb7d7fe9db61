// Matrices of float32 made into panels of int8 and int4, to the bit as model/checkpoint/quantised.py makes them: no
// product is joined with a sum, and sums over a group add its upper half to its lower until one number is left.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include "panels.h"

#define UNIT 4  // bytes of a row that lie together
#define MOST_FACTOR 128  // of int8: that of the step with a row's greatest weight
#define LEAST_SCALE 0x1p-24f  // of float16
#define BEGINNINGS 6  // grids that are fitted to weights with shares
#define FITS 2  // of each
#define KEEP_APART(place) __asm__ volatile("" : "+m"(place))  // the compiler forgets how the number came about

typedef float Group[GROUP];
typedef struct { float error, scale, offset; } Grid;

// Of numbers: fminf and fmaxf think of NaN.
INLINE float least_of(float a, float b) { return a < b ? a : b; }
INLINE float most_of(float a, float b) { return a > b ? a : b; }

static float product(float a, float b) {
    float result = a * b;
    KEEP_APART(result);
    return result;
}

static float sum_halves(Group x) {
    KEEP_APART(*(Group *)x);
    float sums[GROUP / 2];
    for (int i = 0; i < GROUP / 2; i++) sums[i] = x[i] + x[i + GROUP / 2];
    for (int half = GROUP / 4; half; half /= 2)
        for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
}

// Shares add up to GROUP.
static float weighted_mean(const float *values, const float *shares) {
    Group products;
    for (int i = 0; i < GROUP; i++) products[i] = values[i] * shares[i];
    return sum_halves(products) / GROUP;
}

static uint16_t to_float16(float value) {  // to nearest, ties to even; of magnitudes that float16 holds
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude < 0x38800000) {  // below 2^-14: whole steps of 2^-24, which are the last place of numbers from 0.5 on
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        memcpy(&bits, &shifted, sizeof bits);
        return sign | (bits - 0x3f000000);
    }
    magnitude += 0xfff + (magnitude >> 13 & 1);
    return sign | (magnitude - 0x38000000) >> 13;
}

static float from_float16(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;  // moves the exponent, exactly
    return half & 0x8000 ? -value : value;
}

// Places of the weights on a grid, from 0 to 15 where they lie within.
static void place_on_grid(const float *weights, float scale, float offset, Group steps) {
    float inverse = 1 / scale;
    for (int i = 0; i < GROUP; i++) steps[i] = (weights[i] - offset) * inverse;
    KEEP_APART(*(Group *)steps);
}

static float nearest_level(float step) { return least_of(most_of(rintf(step), 0), 15); }

static Grid measured_grid(const float *weights, const float *shares, float scale, float offset) {
    scale = from_float16(to_float16(most_of(scale, LEAST_SCALE)));
    offset = from_float16(to_float16(offset));
    Group steps, squares;
    place_on_grid(weights, scale, offset, steps);
    for (int i = 0; i < GROUP; i++) {
        float wrong = nearest_level(steps[i]) - steps[i];
        squares[i] = wrong * wrong * shares[i];
    }
    return (Grid){sum_halves(squares) * scale * scale, scale, offset};
}

// The scale and offset that bring a grid's levels nearest to the weights: least squares, each with its share.
static Grid fitted_grid(const float *weights, const float *shares, Grid grid) {
    Group steps, levels, products, squares;
    place_on_grid(weights, grid.scale, grid.offset, steps);
    for (int i = 0; i < GROUP; i++) levels[i] = nearest_level(steps[i]);
    float mean = weighted_mean(levels, shares), mean_weight = weighted_mean(weights, shares);
    for (int i = 0; i < GROUP; i++) {
        float centred = levels[i] - mean;
        products[i] = centred * weights[i] * shares[i];
        squares[i] = centred * centred * shares[i];
    }
    float scale = sum_halves(products) / most_of(sum_halves(squares), LEAST_SCALE);
    return measured_grid(weights, shares, scale, mean_weight - product(scale, mean));
}

INLINE Grid better_grid(Grid best, Grid other) { return other.error < best.error ? other : best; }

static Grid best_grid(const float *weights, const float *shares) {
    static const float ends[][2] = {{0, 0}, {0.04f, -0.04f}, {0.05f, 0}, {0, -0.05f}};
    static const float widths[] = {0, -0.08f, -0.05f, -0.05f};  // end - begin
    static const float alike[GROUP] = {[0 ... GROUP - 1] = 1};
    float least = weights[0], greatest = weights[0];
    for (int i = 1; i < GROUP; i++) {
        least = least_of(least, weights[i]);
        greatest = most_of(greatest, weights[i]);
    }
    float span = greatest - least, magnitude = most_of(-least, greatest);
    Grid best = {INFINITY, 0, 0}, grids[BEGINNINGS];
    for (int g = 0; g < 4; g++)
        grids[g] = measured_grid(weights, alike, (span + product(widths[g], span)) / 15, least + product(ends[g][0], span));
    grids[4] = measured_grid(weights, alike, magnitude / 8, (greatest > -least ? -7 / 8.0f : -1) * magnitude);
    for (int g = 0; g < 5; g++) best = better_grid(best, grids[g]);
    best = better_grid(best, fitted_grid(weights, alike, best));
    if (!shares) return best;
    grids[5] = best;
    best.error = INFINITY;
    for (int g = 0; g < BEGINNINGS; g++) {
        Grid grid = measured_grid(weights, shares, grids[g].scale, grids[g].offset);
        best = better_grid(best, grid);
        for (int fit = 0; fit < FITS; fit++) best = better_grid(best, grid = fitted_grid(weights, shares, grid));
    }
    return best;
}

// The greatest magnitude among numbers first .. last - 1 of a row, or 0.
static float greatest_of(const float *row, int64_t first, int64_t last) {
    float greatest = 0;
    for (int64_t k = first; k < last; k++) greatest = most_of(greatest, fabsf(row[k]));
    return greatest;
}

// Panels `first` up to `last` of a matrix of which `matrix` holds the rows from panel `first` on.
void tokenglass_quantize_int8(const float *matrix, int64_t rows, int64_t columns, int64_t first, int64_t last,
                              int8_t *values, float *scales, uint8_t *factors) {
    int64_t steps = STEPS_OF(columns);
    for (int64_t row = first * PANEL; row < last * PANEL; row++) {
        int64_t panel = row / PANEL, lane = row % PANEL, count = row < rows ? columns : 0;
        const float *from = matrix + (row - first * PANEL) * columns;
        float greatest = greatest_of(from, 0, count), scale = greatest / 127 / MOST_FACTOR;
        if (row < rows) scales[row] = scale;
        for (int64_t s = 0; s < steps; s++) {
            int8_t *to = values + ((panel * steps + s) * (STEP / UNIT) * PANEL + lane) * UNIT;
            float most = greatest_of(from, s * STEP, min(count, (s + 1) * STEP));
            float factor = most_of(ceilf(most / (greatest > 0 ? greatest : 1) * MOST_FACTOR), 1);
            float step = factor * (scale > 0 ? scale : 1);
            factors[(panel * steps + s) * PANEL + lane] = row < rows ? (uint8_t)factor : 0;
            for (int64_t k = s * STEP; k < (s + 1) * STEP; k++) {
                float value = k < count ? least_of(most_of(rintf(from[k] / step), -127), 127) : 0;
                to[k % STEP / UNIT * PANEL * UNIT + k % UNIT] = (int8_t)value;
            }
        }
    }
}

// `shares` of the columns, filled up to whole groups: how much an error in each counts. Null: all alike.
void tokenglass_quantize_int4(const float *matrix, int64_t rows, int64_t columns, int64_t first, int64_t last,
                              uint8_t *packed, uint16_t *scales, uint16_t *offsets, const float *shares) {
    int64_t groups = (columns + GROUP - 1) / GROUP;
    for (int64_t row = first * PANEL; row < last * PANEL; row++) {
        int64_t panel = row / PANEL, lane = row % PANEL;
        const float *from = matrix + (row - first * PANEL) * columns;
        for (int64_t g = 0; g < groups; g++) {
            uint8_t *to = packed + ((panel * groups + g) * (GROUP / 2 / UNIT) * PANEL + lane) * UNIT;
            int64_t at = (panel * groups + g) * PANEL + lane;
            Group weights = {0}, steps;
            Grid best = {0, 0, 0};
            uint8_t levels[GROUP] = {0};
            if (row < rows) {
                int64_t count = columns - g * GROUP < GROUP ? columns - g * GROUP : GROUP;
                memcpy(weights, from + g * GROUP, count * sizeof *weights);
                best = best_grid(weights, shares ? shares + g * GROUP : NULL);
                place_on_grid(weights, best.scale, best.offset, steps);
                for (int i = 0; i < GROUP; i++) levels[i] = (uint8_t)nearest_level(steps[i]);
            }
            scales[at] = to_float16(best.scale);
            offsets[at] = to_float16(best.offset);
            for (int j = 0; j < GROUP / 2; j++)
                to[j / UNIT * PANEL * UNIT + j % UNIT] = levels[j] | levels[j + GROUP / 2] << 4;
        }
    }
}
