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

#define GROUPS_TOGETHER(kind) ((kind) == INT8 ? STEP / GROUP : 1)  // in a sum of whole numbers
#define PLACES_OF(kind) ((kind) == INT8 ? 2 : 4)  // pairs of words in a unit
#define PAIR_BYTES (4 * PANEL)                    // two words of each row
#define PANEL_WORDS(size) (STEPS_OF(size) * STEP / 2 * PAIR_BYTES)  // bytes of a panel as words
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
    const int together = GROUPS_TOGETHER(kind);  // groups that share a step
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

// Which pair of a group's words these weights are multiplied with.
INLINE int pair_of(int kind, int unit, int place) {
    return kind == INT8 ? 2 * unit + place : 2 * unit + place % 2 * (GROUP / 4) + place / 2;
}

INLINE int32_t pair_at(const WordGroup *group, int pair) {
    int32_t two;
    memcpy(&two, group->q + 2 * pair, sizeof two);
    return two;
}

// A panel as words, in the order of a column's pairs: for many columns it is unpacked once.
INLINE void unpack_words(int kind, const Panel *panel, long size, char *to) {
    const int units = GROUP / 2 / PLACES_OF(kind);
    const long groups = kind == INT8 ? STEPS_OF(size) * STEP / GROUP : GROUPS_OF(size);
    const char *from = panel->values;
    for (long g = 0; g < groups; g++, to += GROUP / 2 * PAIR_BYTES)
        for (int u = 0; u < units; u++, from += UNIT_BYTES)
            for (int p = 0; p < PLACES_OF(kind); p++)
                UNROLL for (int part = 0; part < PANEL_VECTORS; part++) {
                    words lanes = words_of(kind, from + part * 4 * LANES, p);
                    memcpy(to + pair_of(kind, u, p) * PAIR_BYTES + part * 4 * LANES, &lanes, sizeof lanes);
                }
}
