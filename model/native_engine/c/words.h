// Columns as words of 16 bits, and their products with panels of int8 and int4: sums of two products of words are one
// instruction of every x86 processor. A group's numbers are counted in a step of their own, x = step * q. Sums over a
// group are exact and groups are added in their order, so every bit is the same for one column or many, on any thread.
#pragma once
#include "panels.h"

#define GREATEST_WORD 32767  // GROUP products with a byte fit an int32
#define ROUND 12582912.0f    // 1.5 * 2**23: added to a number, its lowest bits are the nearest whole number
#define TILE_VECTORS (PANEL_VECTORS < 2 ? PANEL_VECTORS : 2)  // of rows in a register tile
#define TILE_COLUMNS 4

// Whether tiles are compiled for processors with AVX-VNNI too, which add products of words to a sum in one instruction.
#ifndef FUSED_TILES
#define FUSED_TILES (LANES == 8 && __GNUC__ >= 11)
#endif

typedef int16_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t uwords __attribute__((vector_size(4 * LANES)));

typedef struct {
    int16_t q[GROUP];  // of each four the first and the third, then the second and the fourth: see `words_of`
    float step, sum;   // sum: of step * q
} WordGroup;

#define WORD_BYTES(size) (GROUPS_OF(size) * (long)sizeof(WordGroup))

// GROUP numbers in words. Numbers that are not finite make the step, and so every sum, none.
INLINE void to_word_group(const float *x, WordGroup *out) {
    vec greatest = splat(0), poison = splat(0);
    UNROLL for (int i = 0; i < GROUP; i += LANES) {
        greatest = larger((vec)((ivec)load(x + i) & 0x7fffffff), greatest);
        poison += load(x + i) * 0.0f;
    }
    float step = lane_max(greatest) / GREATEST_WORD;
    step = step > LEAST_STEP ? step : LEAST_STEP;
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
    out->step = step + lane_sum(poison);
    out->sum = out->step * total;
}

// The column x (size,) as `out`, WORD_BYTES of memory.
NOINLINE void to_words(const float *x, long size, WordGroup *out) {
    long whole = size / GROUP;
    for (long g = 0; g < whole; g++) to_word_group(x + g * GROUP, out + g);
    if (whole == GROUPS_OF(size)) return;
    float last[GROUP] = {0};
    memcpy(last, x + whole * GROUP, (size - whole * GROUP) * sizeof *x);
    to_word_group(last, out + whole);
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

#define WAY(name) name
#define FUSED 0
#include "word_tiles.h"
#undef WAY
#undef FUSED

#if FUSED_TILES
#pragma GCC push_options
#pragma GCC target("avxvnni")
#define WAY(name) fused_##name
#define FUSED 1
#include "word_tiles.h"
#undef WAY
#undef FUSED
#pragma GCC pop_options
#endif

// sums[part * columns + c]: those of part `part` of a panel's rows with column c, of columns `bytes` apart.
static void word_dots(int kind, const Panel *panel, long columns, const char *x, long bytes, long size, vec *sums) {
#if FUSED_TILES
    if (__builtin_cpu_supports("avxvnni")) {
        fused_tiled_dots(kind, panel, columns, x, bytes, size, sums);
        return;
    }
#endif
    tiled_dots(kind, panel, columns, x, bytes, size, sums);
}
