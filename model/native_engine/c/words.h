// Columns as words of 16 bits, and panels of int8 and int4 as words: sums of two products of words are one instruction
// of every x86 processor. The numbers of each STEP of int8, or group of int4, are counted in a step of their own,
// x = step * q. Sums over these are exact and are added in their order, so every bit is the same for one column or many,
// on any thread.
#pragma once
#include "panels.h"

#define GREATEST_WORD 32767  // STEP products with a byte fit an int32

typedef int16_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t uwords __attribute__((vector_size(4 * LANES)));

typedef struct {
    int16_t q[GROUP];  // of each four the first and the third, then the second and the fourth: see `words_of`
    float step, sum;   // sum: of step * q
} WordGroup;

#define WORD_BYTES(size) (STEPS_OF(size) * STEP / GROUP * (long)sizeof(WordGroup))

// What numbers are counted in, by their greatest. Those that are not finite make it, and so every sum, none.
typedef struct {
    vec greatest, poison;
} Range;

INLINE Range range_of(Range range, const float *x) {  // of GROUP more numbers
    UNROLL for (int i = 0; i < GROUP; i += LANES) {
        range.greatest = larger((vec)((ivec)load(x + i) & 0x7fffffff), range.greatest);
        range.poison += load(x + i) * 0.0f;
    }
    return range;
}

INLINE float word_step(Range range) {
    float step = lane_max(range.greatest) / GREATEST_WORD;
    return (step > LEAST_STEP ? step : LEAST_STEP) + lane_sum(range.poison);
}

// GROUP numbers in words, counted in `step`.
INLINE void to_word_group(const float *x, float step, WordGroup *out) {
    float inverse = 1 / step;
    int32_t q[GROUP];
    ivec sum = isplat(0);
    UNROLL for (int i = 0; i < GROUP; i += LANES) {
        ivec whole = (ivec)(load(x + i) * inverse + ROUND) - (ivec)splat(ROUND);
        whole = whole << 16 >> 16;  // of what is not finite too, so that sums stay in bounds
        sum += whole;
        memcpy(q + i, &whole, sizeof whole);
    }
    UNROLL for (int i = 0; i < GROUP; i++) out->q[i / 4 * 4 + i % 2 * 2 + i % 4 / 2] = q[i];
    int32_t total = 0;
    UNROLL for (int i = 0; i < LANES; i++) total += sum[i];
    out->step = step;
    out->sum = step * total;
}

// The column x (size,) as `out`, WORD_BYTES of memory, for products with rows of this kind.
NOINLINE void to_words(int kind, const float *x, long size, WordGroup *out) {
    const int together = kind == INT8 ? STEP / GROUP : 1;  // groups that share a step
    long whole = size / GROUP, groups = STEPS_OF(size) * STEP / GROUP;
    float ends[2][GROUP] = {{0}};  // the last numbers, and zeros behind them
    memcpy(ends[0], x + whole * GROUP, (size - whole * GROUP) * sizeof *x);
    for (long first = 0; first < groups; first += together) {
        const float *from[STEP / GROUP];
        Range range = {splat(0), splat(0)};
        for (long g = 0; g < together; g++) {
            from[g] = first + g < whole ? x + (first + g) * GROUP : ends[first + g > whole];
            range = range_of(range, from[g]);
        }
        float step = word_step(range);
        for (long g = 0; g < together; g++) to_word_group(from[g], step, out + first + g);
    }
}

// The weights of a unit that lie `place` numbers further on than others of their bytes, as words: those of the first
// and the third byte of a row, and of the second and the fourth; of int4 low nibbles and high ones.
INLINE words words_of(int kind, const char *unit, int place) {
    words bytes = (words)load(unit);
    if (kind == INT8) return place ? bytes >> 8 : bytes << 8 >> 8;
    return (words)((uwords)bytes >> 4 * place & 15);
}

// The two words of a column that these weights are multiplied with.
INLINE int32_t pair_of(int kind, const WordGroup *group, int unit, int place) {
    int32_t pair;
    int four = kind == INT8 ? unit : unit + place % 2 * (GROUP / 8), half = kind == INT8 ? place : place / 2;
    memcpy(&pair, group->q + 4 * four + 2 * half, sizeof pair);
    return pair;
}
