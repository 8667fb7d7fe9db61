// Columns in fixed point, for machines that multiply bytes where rows are int8 or int4.
// A column becomes whole numbers of 16 bits, x = step * q, in two planes of bytes: q = 256 high + low. Sums over a step of
// int8 or a group of int4 are exact.
#pragma once
#include "byte_products.h"
#include "panels.h"

#define PLANES 2
#define GREATEST_FIXED 32639  // of |q|, so that both bytes are signed ones
#define FIXED_BYTES(size) (64 + (STEPS_OF(size) * (STEP * PLANES + 4 * STEP / GROUP + 4) + 63) / 64 * 64)

typedef struct {  // a column; behind it STEP bytes of each plane, step by step, the sums of the groups, and the starts
    _Alignas(64) float step;
} Fixed;

#if BYTE_PRODUCTS

typedef int8_t lane_bytes __attribute__((vector_size(LANES)));

// The bytes of a plane from element k on, as far as the end of k's step.
INLINE const char *plane_at(const Fixed *x, int plane, long k) {
    return (const char *)(x + 1) + (k / STEP * PLANES + plane) * STEP + k % STEP;
}

// The sum of q over each group.
INLINE float *group_sums(const Fixed *x, long size) { return (float *)((char *)(x + 1) + STEPS_OF(size) * STEP * PLANES); }

// What sums over each step begin with: minus that of q, times what is added to every weight.
INLINE int32_t *starts(const Fixed *x, long size) {
    return (int32_t *)(group_sums(x, size) + STEPS_OF(size) * STEP / GROUP);
}

// What a column's numbers are counted in. Numbers that are not finite make it, and so every sum, none.
INLINE float step_of(vec greatest, vec poison) {
    float step = lane_max(greatest) / GREATEST_FIXED;
    return (step > LEAST_STEP ? step : LEAST_STEP) + lane_sum(poison);
}

INLINE ivec q_of(const float *x, float inverse) {
    vec value = load(x) * inverse;
    ivec in_range = (ivec)((ivec)value & 0x7fffffff) < (ivec)splat(2 * GREATEST_FIXED);  // not in a column that is not finite
    return ((ivec)(value + ROUND) - (ivec)splat(ROUND)) & in_range;
}

// Whole numbers as bytes of the planes: low, high.
INLINE void split_into_bytes(ivec q, ivec *parts) {
    parts[0] = q << 24 >> 24;
    parts[1] = (q - parts[0]) >> 8;
}

// The column x (size,) as `out`, FIXED_BYTES of memory.
NOINLINE void to_fixed(const float *x, long size, Fixed *out) {
    long whole = size / GROUP, groups = STEPS_OF(size) * STEP / GROUP;
    float *totals = group_sums(out, size);
    int32_t *begins = starts(out, size);
    float ends[2][GROUP] = {{0}};  // the last numbers, and zeros behind them
    memcpy(ends[0], x + whole * GROUP, (size - whole * GROUP) * sizeof *x);
    vec greatest = splat(0), poison = splat(0);
    for (long g = 0; g <= whole; g++) {
        const float *from = g < whole ? x + g * GROUP : ends[0];
        UNROLL for (int i = 0; i < GROUP; i += LANES) {
            greatest = larger((vec)((ivec)load(from + i) & 0x7fffffff), greatest);
            poison += load(from + i) * 0.0f;
        }
    }
    out->step = step_of(greatest, poison);
    float inverse = 1 / out->step;
    for (long g = 0; g < groups; g++) {
        const float *from = g < whole ? x + g * GROUP : ends[g > whole];
        ivec total = isplat(0);
        UNROLL for (int i = 0; i < GROUP; i += LANES) {
            ivec q = q_of(from + i, inverse), parts[PLANES];
            total += q;
            split_into_bytes(q, parts);
            UNROLL for (int p = 0; p < PLANES; p++) {
                lane_bytes narrow = __builtin_convertvector(parts[p], lane_bytes);
                memcpy((char *)plane_at(out, p, g * GROUP + i), &narrow, sizeof narrow);
            }
        }
        int32_t sum = 0;
        UNROLL for (int i = 0; i < LANES; i++) sum += total[i];
        totals[g] = sum;
    }
    for (long s = 0; s < STEPS_OF(size); s++) begins[s] = -WEIGHT_OFFSET * (int32_t)(totals[2 * s] + totals[2 * s + 1]);
}

#endif
