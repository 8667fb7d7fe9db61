// The instructions of 512 bits (AVX-512 F, BW, VNNI) that the kernels use, in plain C, for processors without them: what
// the manual says each does. Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VPDPBUSD and others.
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define COMPUTE_NOW(sum)  // no register is as wide

#undef __AVX512F__
#undef __AVX512VNNI__
#define __AVX512F__ 1
#define __AVX512VNNI__ 1

typedef union {
    __m512i whole;
    __m512 floats;
    uint8_t bytes[64];
    int8_t signed_bytes[64];
    uint16_t words[32];
    int32_t numbers[16];
    uint32_t bits[16];
    uint64_t quads[8];
    float values[16];
} Emulated;

#define EMULATE static inline __attribute__((always_inline))
#define EMULATED_LANES(count, statement) for (int i = 0; i < (count); i++) statement;

EMULATE __m512i emulate_load(const void *from) {
    Emulated out;
    memcpy(&out, from, sizeof out);
    return out.whole;
}

EMULATE void emulate_store(void *to, __m512i value) { memcpy(to, &value, sizeof value); }

EMULATE __m512i emulate_same_number(int32_t number) {
    Emulated out;
    EMULATED_LANES(16, out.numbers[i] = number)
    return out.whole;
}

EMULATE __m512i emulate_same_byte(char byte) {
    Emulated out;
    memset(&out, byte, sizeof out);
    return out.whole;
}

EMULATE __m512i emulate_word_shift(__m512i value, int count) {
    Emulated out = {value};
    EMULATED_LANES(32, out.words[i] = out.words[i] >> count)
    return out.whole;
}

EMULATE __m512i emulate_products(__m512i sums, __m512i unsigned_bytes, __m512i signed_bytes) {
    Emulated out = {sums}, a = {unsigned_bytes}, b = {signed_bytes};
    EMULATED_LANES(64, out.bits[i / 4] += (uint32_t)(a.bytes[i] * b.signed_bytes[i]))
    return out.whole;
}

#define EMULATE_WIDENING(name, narrow, from_type)    \
    EMULATE __m512i name(from_type from) {           \
        narrow parts[16];                            \
        Emulated out;                                \
        memcpy(parts, &from, sizeof parts);          \
        EMULATED_LANES(16, out.numbers[i] = parts[i]) \
        return out.whole;                            \
    }
EMULATE_WIDENING(emulate_widen_int8, int8_t, __m128i)
EMULATE_WIDENING(emulate_widen_uint8, uint8_t, __m128i)
EMULATE_WIDENING(emulate_widen_uint16, uint16_t, __m256i)

EMULATE __m512 emulate_from_halves(__m256i from) {
    uint16_t halves[16];
    Emulated out;
    memcpy(halves, &from, sizeof halves);
    for (int i = 0; i < 16; i++) {
        out.bits[i] = (uint32_t)(halves[i] & 0x7fff) << 13;
        if ((halves[i] & 0x7c00) == 0x7c00) out.bits[i] |= 0x7f800000;  // not finite
        else out.values[i] *= 0x1p112f;
        out.bits[i] |= (uint32_t)(halves[i] & 0x8000) << 16;
    }
    return out.floats;
}

EMULATE int emulate_any(__m512i a, __m512i b) {
    Emulated both = {a & b};
    int mask = 0;
    EMULATED_LANES(8, mask |= (both.quads[i] != 0) << i)
    return mask;
}

#define _mm512_load_si512 emulate_load
#define _mm512_loadu_si512 emulate_load
#define _mm512_storeu_si512 emulate_store
#define _mm512_set1_epi32 emulate_same_number
#define _mm512_set1_epi8 emulate_same_byte
#define _mm512_and_si512(a, b) ((a) & (b))
#define _mm512_srli_epi16 emulate_word_shift
#define _mm512_dpbusd_epi32 emulate_products
#define _mm512_cvtepi8_epi32 emulate_widen_int8
#define _mm512_cvtepu8_epi32 emulate_widen_uint8
#define _mm512_cvtepu16_epi32 emulate_widen_uint16
#define _mm512_cvtph_ps emulate_from_halves
#define _mm512_test_epi64_mask emulate_any
