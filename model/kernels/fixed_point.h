// Columns in fixed point, for machines that multiply bytes (AVX-512 VNNI) where rows are int8 or int4.
// A column becomes whole numbers of 23 bits, x = step * q, in three planes of bytes: q = 65536 high + 256 middle + low.
// So it keeps what float32 can tell beside its greatest number; sums over a row of int8 or a group of int4 are exact.
#pragma once
#include "dots.h"

#if defined(__AVX512VNNI__)
#define BYTE_PRODUCTS 1
#else
#define BYTE_PRODUCTS 0
#endif

#define PLANES 3
#define BITS 22              // of |q|: 32 products with a nibble stay within an int32
#define STEP_BYTES 64        // of weights that meet a vector of a plane
#define SPAN (4 * GROUP)     // columns come in spans of it, filled up with zeros
#define SPANS_OF(size) (((size) + SPAN - 1) / SPAN)
#define FIXED_BYTES(size) (64 + SPANS_OF(size) * (SPAN * PLANES + 64))

typedef struct {                       // a column; behind it the planes
    _Alignas(64) float step;
    int32_t sums[PLANES];              // of each plane's bytes: low, middle, high
} Fixed;

#if BYTE_PRODUCTS

// int4 only: the sum of q over each group, four times, as a span's sums of four rows take it.
INLINE float *group_sums(const Fixed *x, long size) { return (float *)((char *)(x + 1) + SPANS_OF(size) * SPAN * PLANES); }

// Where element k of a column lies in a plane's share of its span: int4 has 16 of each group of 32, then the others.
INLINE long place(int kind, long k) {
    if (kind == INT8) return k;
    long group = k / GROUP % 4, element = k % GROUP;
    return k / SPAN * SPAN + element / 16 * 64 + group * 16 + element % 16;
}

INLINE ivec q_of(const float *x, long from, long size, float inverse) {
    if (from >= size) return isplat(0);
    vec value = load_some(x + from, min(LANES, size - from)) * inverse;
    ivec held = (ivec)((ivec)value & 0x7fffffff) < (ivec)splat(2 << BITS);  // not those of a column that is not finite
    return (ivec)_mm512_cvtps_epi32((__m512)value) & held;
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
INLINE void split(ivec q, ivec *parts) {
    parts[0] = q << 24 >> 24;
    parts[1] = (q - parts[0]) << 16 >> 24;
    parts[2] = (((q - parts[0]) >> 8) - parts[1]) >> 8;
}

// The column x (size,) as `out`, FIXED_BYTES of memory.
APART void to_fixed(int kind, const float *x, long size, Fixed *out) {
    float inverse;
    out->step = step_of(x, size, &inverse);
    ivec sums[PLANES] = {isplat(0), isplat(0), isplat(0)};
    char *planes = (char *)(out + 1);
    float *groups = group_sums(out, size);
    for (long i = 0; i < SPANS_OF(size) * SPAN; i += LANES) {
        ivec q = q_of(x, i, size, inverse), parts[PLANES];
        split(q, parts);
        long at = place(kind, i);
        char *to = planes + at / STEP_BYTES * STEP_BYTES * PLANES + at % STEP_BYTES;
        UNROLL for (int p = 0; p < PLANES; p++) {
            sums[p] += parts[p];
            _mm_storeu_si128((__m128i *)(to + p * STEP_BYTES), _mm512_cvtepi32_epi8((__m512i)parts[p]));
        }
        if (kind == INT4 && i % GROUP == 0) {
            ivec both = q + q_of(x, i + LANES, size, inverse);
            for (long r = 0; r < ROWS; r++) groups[i / GROUP * ROWS + r] = _mm512_reduce_add_epi32((__m512i)both);
        }
    }
    UNROLL for (int p = 0; p < PLANES; p++) out->sums[p] = _mm512_reduce_add_epi32((__m512i)sums[p]);
}

#endif
