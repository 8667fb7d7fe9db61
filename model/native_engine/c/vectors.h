// Vectors of the machine's own width, and the few operations on them that the kernels need.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))  // one copy: however it is reached, the same instructions round
#define UNROLL _Pragma("GCC unroll 32")
#define NO_UNROLL _Pragma("GCC unroll 1")  // where the compiler would collect the terms of many turns, and spill them

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef vec vec_anywhere __attribute__((aligned(1), may_alias));

INLINE long min(long a, long b) { return a < b ? a : b; }
INLINE long max(long a, long b) { return a > b ? a : b; }

INLINE vec load(const void *from) { return *(const vec_anywhere *)from; }
INLINE void store(float *to, vec value) { *(vec_anywhere *)to = value; }
INLINE vec splat(float value) { return value - (vec){0}; }
INLINE ivec isplat(int32_t value) { return value - (ivec){0}; }
INLINE vec blend(ivec where, vec yes, vec no) { return (vec)((where & (ivec)yes) | (~where & (ivec)no)); }

// b where a number is none.
#if LANES == 8
INLINE vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vec smaller(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE vec larger(vec a, vec b) { return blend(a > b, a, b); }
INLINE vec smaller(vec a, vec b) { return blend(a < b, a, b); }
#endif

// Computes a sum here and now: else the compiler collects the terms of many turns, and spills them.
#ifndef COMPUTE_NOW
#if defined(__AVX512F__)
#define COMPUTE_NOW(sum) __asm__("" : "+v"(sum))
#elif defined(__x86_64__)
#define COMPUTE_NOW(sum) __asm__("" : "+x"(sum))
#elif defined(__aarch64__)
#define COMPUTE_NOW(sum) __asm__("" : "+w"(sum))
#else
#define COMPUTE_NOW(sum)
#endif
#endif

INLINE ivec iota(void) {
    ivec lanes;
    UNROLL for (int i = 0; i < LANES; i++) lanes[i] = i;
    return lanes;
}

// The first `count` numbers of a vector, LANES at most; a load has zeros behind them.
INLINE vec load_some(const void *from, long count) {
    if (count >= LANES) return load(from);
    float lanes[LANES] = {0};
    memcpy(lanes, from, count * sizeof *lanes);
    return load(lanes);
}

INLINE void store_some(float *to, vec value, long count) {
    if (count >= LANES) {
        store(to, value);
        return;
    }
    float lanes[LANES];
    store(lanes, value);
    memcpy(to, lanes, count * sizeof *to);
}

INLINE vec floats(ivec value) { return __builtin_convertvector(value, vec); }

// LANES numbers of 8 or 16 bits, each in a lane of 32.
#if defined(__AVX512F__)
INLINE ivec widen_int8(const void *from) { return (ivec)_mm512_cvtepi8_epi32(_mm_loadu_si128(from)); }
INLINE ivec widen_uint8(const void *from) { return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128(from)); }
INLINE ivec widen_uint16(const void *from) { return (ivec)_mm512_cvtepu16_epi32(_mm256_loadu_si256(from)); }
#elif defined(__AVX2__)
INLINE ivec widen_int8(const void *from) { return (ivec)_mm256_cvtepi8_epi32(_mm_loadl_epi64(from)); }
INLINE ivec widen_uint8(const void *from) { return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64(from)); }
INLINE ivec widen_uint16(const void *from) { return (ivec)_mm256_cvtepu16_epi32(_mm_loadu_si128(from)); }
#else
#define WIDEN(name, narrow)                                        \
    INLINE ivec name(const void *from) {                           \
        narrow lanes[LANES];                                       \
        ivec wide;                                                 \
        memcpy(lanes, from, sizeof lanes);                         \
        UNROLL for (int i = 0; i < LANES; i++) wide[i] = lanes[i]; \
        return wide;                                               \
    }
WIDEN(widen_int8, int8_t)
WIDEN(widen_uint8, uint8_t)
WIDEN(widen_uint16, uint16_t)
#endif

INLINE vec load_bfloat16(const void *from) { return (vec)(widen_uint16(from) << 16); }

#if defined(__AVX512F__)
INLINE vec load_float16(const void *from) { return (vec)_mm512_cvtph_ps(_mm256_loadu_si256(from)); }
#elif defined(__AVX2__) && defined(__F16C__)
INLINE vec load_float16(const void *from) { return (vec)_mm256_cvtph_ps(_mm_loadu_si128(from)); }
#elif defined(__aarch64__)
INLINE vec load_float16(const void *from) {
    float16x4_t halves;
    memcpy(&halves, from, sizeof halves);
    return (vec)vcvt_f32_f16(halves);
}
#else
INLINE vec load_float16(const void *from) {  // finite numbers: the exponent is moved by a product, which is exact
    ivec bits = widen_uint16(from);
    vec magnitude = (vec)((bits & 0x7fff) << 13) * 0x1p112f;
    return (vec)((ivec)magnitude | (bits & 0x8000) << 16);
}
#endif

INLINE uint16_t to_bfloat16(float value) {  // to nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return value == value ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
}

// Lane i of a, or of b where i has bit `step`; and the same for the lanes `step` away.
#if defined(__clang__)
INLINE vec own_lanes(vec a, vec b, int step) {
    vec out;
    UNROLL for (int i = 0; i < LANES; i++) out[i] = i & step ? b[i] : a[i];
    return out;
}
INLINE vec other_lanes(vec a, vec b, int step) {
    vec out;
    UNROLL for (int i = 0; i < LANES; i++) out[i] = i & step ? b[i & ~step] : a[i | step];
    return out;
}
#elif LANES == 8
INLINE vec own_lanes(vec a, vec b, int step) {
    if (step == 4) return (vec)_mm256_blend_ps((__m256)a, (__m256)b, 0xf0);
    if (step == 2) return (vec)_mm256_blend_ps((__m256)a, (__m256)b, 0xcc);
    return (vec)_mm256_blend_ps((__m256)a, (__m256)b, 0xaa);
}
INLINE vec other_lanes(vec a, vec b, int step) {
    if (step == 4) return (vec)_mm256_permute2f128_ps((__m256)a, (__m256)b, 0x21);
    if (step == 2) return (vec)_mm256_shuffle_ps((__m256)a, (__m256)b, 0x4e);
    return (vec)_mm256_permute_ps((__m256)own_lanes(b, a, 1), 0xb1);
}
#else
INLINE vec own_lanes(vec a, vec b, int step) {
    return __builtin_shuffle(a, b, iota() + (iota() & step) * (LANES / step));
}
INLINE vec other_lanes(vec a, vec b, int step) {
    return __builtin_shuffle(a, b, (iota() ^ step) + (iota() & step) * (LANES / step));
}
#endif

// Lane i: the sum over the lanes of value i, for a power of two of values up to LANES. Lanes are added in pairs that
// are LANES/2, then LANES/4, ... apart, however many values there are, so a sum does not depend on its company.
INLINE vec lane_sums(vec *values, int count) {
    UNROLL for (int step = LANES / 2; step; step /= 2) {
        if (count > step) {
            UNROLL for (int i = 0; i < step; i++) {
                vec a = values[i], b = values[i + step];
                values[i] = own_lanes(a, b, step) + other_lanes(a, b, step);
            }
            count = step;
        } else {
            UNROLL for (int i = 0; i < count; i++) {
                vec a = values[i];
                values[i] = own_lanes(a, a, step) + other_lanes(a, a, step);
            }
        }
    }
    return values[0];
}

INLINE float lane_sum(vec value) { return lane_sums(&value, 1)[0]; }

INLINE float lane_max(vec value) {
    float most = value[0];
    UNROLL for (int i = 1; i < LANES; i++) most = value[i] > most ? value[i] : most;
    return most;
}

// e**x within 2 units in the last place; 0 below -87.3, e**88 above 88. (A polynomial over half an octave, Cody and Waite's reduction.)
INLINE vec exp_of(vec x) {
    ivec tiny = x < -87.3f;
    x = smaller(splat(88.0f), larger(splat(-87.3f), x));
    vec octaves = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounded to a whole number
    vec rest = x - octaves * 0.693359375f + octaves * 2.12194440e-4f;
    vec sum = rest * (1.0f / 5040) + 1.0f / 720;
    sum = sum * rest + 1.0f / 120;
    sum = sum * rest + 1.0f / 24;
    sum = sum * rest + 1.0f / 6;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    sum = sum * rest + 1.0f;
    vec power = (vec)((__builtin_convertvector(octaves, ivec) + 127) << 23);
    return blend(tiny, splat(0), sum * power);
}

INLINE vec tanh_of(vec x) { return 1.0f - 2.0f / (exp_of(2.0f * x) + 1.0f); }
