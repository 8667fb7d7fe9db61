// The product of bytes of AVX-VNNI (256 bits) in plain C, for processors with AVX2 and no more: what the manual says it does.
// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VPDPBUSD.
#include <immintrin.h>
#include <stdint.h>

#undef __AVXVNNI__
#define __AVXVNNI__ 1

typedef union {
    __m256i whole;
    uint8_t bytes[32];
    int8_t signed_bytes[32];
    uint32_t bits[8];
} EmulatedHalf;

static inline __attribute__((always_inline)) __m256i emulate_half_products(__m256i sums, __m256i unsigned_bytes,
                                                                          __m256i signed_bytes) {
    EmulatedHalf out = {sums}, a = {unsigned_bytes}, b = {signed_bytes};
    for (int i = 0; i < 32; i++) out.bits[i / 4] += (uint32_t)(a.bytes[i] * b.signed_bytes[i]);
    return out.whole;
}

#define _mm256_dpbusd_avx_epi32 emulate_half_products
