// Products of bytes added to sums of int32 in one instruction, on processors that have one: AVX-512 VNNI, AVX-VNNI, and
// the dot products of 64-bit ARM. Sums of whole numbers are exact, so all give the same bits.
#pragma once
#include "vectors.h"

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) && LANES == 8 || defined(__ARM_FEATURE_DOTPROD)
#define BYTE_PRODUCTS 1
#else
#define BYTE_PRODUCTS 0
#endif

#if BYTE_PRODUCTS

// What is added to weights of int8: x86 multiplies unsigned bytes with signed ones, ARM signed ones.
#if defined(__ARM_FEATURE_DOTPROD)
#define WEIGHT_OFFSET 0
#else
#define WEIGHT_OFFSET 128
#endif

typedef uint8_t bytes __attribute__((vector_size(4 * LANES)));

// In each lane the sum and four products: of its bytes of weights with the signed ones at `four`.
INLINE ivec dot4(ivec sum, bytes weights, const char *four) {
    int32_t signed_bytes;
    memcpy(&signed_bytes, four, 4);
#if defined(__AVX512VNNI__)
    return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, _mm512_set1_epi32(signed_bytes));
#elif defined(__AVXVNNI__)
    return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, _mm256_set1_epi32(signed_bytes));
#else
    return (ivec)vdotq_s32((int32x4_t)sum, (int8x16_t)weights, vreinterpretq_s8_s32(vdupq_n_s32(signed_bytes)));
#endif
}

#endif
