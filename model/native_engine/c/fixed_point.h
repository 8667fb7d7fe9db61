// Columns in fixed point, for machines that multiply bytes (AVX-512 VNNI) where rows are int8 or int4.
// A column becomes whole numbers of 23 bits, x = step * q, in three planes of bytes: q = 65536 high + 256 middle + low.
// So it keeps what float32 can tell beside its greatest number; sums over a row of int8 or a group of int4 are exact.
#pragma once
#include "panels.h"

#if defined(__AVX512VNNI__)
#define BYTE_PRODUCTS 1
#else
#define BYTE_PRODUCTS 0
#endif

#define PLANES 3
#define BITS 22  // of |q|: 32 products with a nibble stay within an int32
#define FIXED_BYTES(size) (64 + (STEPS_OF(size) * (STEP * PLANES + 4 * STEP / GROUP) + 63) / 64 * 64)

typedef struct {  // a column; behind it STEP bytes of each plane, step by step, and then the sums of the groups
    _Alignas(64) float step;
    int32_t sums[PLANES];  // of each plane's bytes: low, middle, high
} Fixed;

#if BYTE_PRODUCTS

// The bytes of a plane from element k on, as far as the end of k's step.
INLINE const char *plane_at(const Fixed *x, int plane, long k) {
    return (const char *)(x + 1) + (k / STEP * PLANES + plane) * STEP + k % STEP;
}

// The sum of q over each group.
INLINE float *group_sums(const Fixed *x, long size) { return (float *)((char *)(x + 1) + STEPS_OF(size) * STEP * PLANES); }

// LANES whole numbers of a column, zeros behind its end.
INLINE ivec q_of(const float *x, long from, long size, float inverse) {
    if (from >= size) return isplat(0);
    vec value = load_some(x + from, min(LANES, size - from)) * inverse;
    ivec in_range = (ivec)((ivec)value & 0x7fffffff) < (ivec)splat(2 << BITS);  // not those of a column that is not finite
    return (ivec)_mm512_cvtps_epi32((__m512)value) & in_range;
}

// What a column's numbers are counted in, and its inverse. Numbers that are not finite make it, and so every sum, none.
INLINE float step_of(const float *x, long size, float *inverse) {
    vec most = splat(0), poison = splat(0);
    for (long i = 0; i < size; i += LANES) {
        vec value = load_some(x + i, min(LANES, size - i));
        most = larger((vec)((ivec)value & 0x7fffffff), most);
        poison += value * 0.0f;
    }
    int exponent;
    frexpf(_mm512_reduce_max_ps((__m512)most), &exponent);
    exponent = exponent < -100 ? -100 : exponent;
    *inverse = ldexpf(1, BITS - exponent);
    return ldexpf(1, exponent - BITS) + lane_sum(poison);
}

// Whole numbers as bytes of the planes: low, middle, high.
INLINE void split_into_bytes(ivec q, ivec *parts) {
    parts[0] = q << 24 >> 24;
    parts[1] = (q - parts[0]) << 16 >> 24;
    parts[2] = (((q - parts[0]) >> 8) - parts[1]) >> 8;
}

// The column x (size,) as `out`, FIXED_BYTES of memory.
NOINLINE void to_fixed(const float *x, long size, Fixed *out) {
    float inverse, *groups = group_sums(out, size);
    out->step = step_of(x, size, &inverse);
    ivec sums[PLANES] = {isplat(0), isplat(0), isplat(0)};
    for (long k = 0; k < STEPS_OF(size) * STEP; k += GROUP) {
        ivec total = isplat(0);
        UNROLL for (int i = 0; i < GROUP; i += LANES) {
            ivec q = q_of(x, k + i, size, inverse), parts[PLANES];
            total += q;
            split_into_bytes(q, parts);
            UNROLL for (int p = 0; p < PLANES; p++) {
                sums[p] += parts[p];
                _mm_storeu_si128((__m128i *)plane_at(out, p, k + i), _mm512_cvtepi32_epi8((__m512i)parts[p]));
            }
        }
        groups[k / GROUP] = _mm512_reduce_add_epi32((__m512i)total);
    }
    UNROLL for (int p = 0; p < PLANES; p++) out->sums[p] = _mm512_reduce_add_epi32((__m512i)sums[p]);
}

#endif
