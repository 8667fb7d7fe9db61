// Register tiles of words: the products of a few columns with a panel's rows.
#pragma once
#include "words.h"

#define TILE_VECTORS (PANEL_VECTORS < 2 ? PANEL_VECTORS : 2)  // of rows in a register tile
#define TILE_COLUMNS 4

// In each lane the sum and two products: of its words with the two of `pair`.
INLINE ivec add_products(ivec sum, words lanes, int32_t pair) {
#if LANES == 16 && defined(__AVX512BW__)
    return sum + (ivec)_mm512_madd_epi16((__m512i)lanes, _mm512_set1_epi32(pair));
#elif LANES == 8
    return sum + (ivec)_mm256_madd_epi16((__m256i)lanes, _mm256_set1_epi32(pair));
#elif LANES == 4 && defined(__SSE2__)
    return sum + (ivec)_mm_madd_epi16((__m128i)lanes, _mm_set1_epi32(pair));
#else
    return sum + ((ivec)lanes << 16 >> 16) * (int16_t)pair + ((ivec)lanes >> 16) * (pair >> 16);
#endif
}

// sums[v * stride + c]: those of part `part` + v of a panel's rows with column c, but for the rows' scales of int8. Sums of
// whole numbers go over a STEP of int8, over a GROUP of int4. `from`: the panel's values, or, `unpacked`, the same as words.
INLINE void word_tile(int kind, int columns, bool unpacked, const char *from, const Panel *panel, long part, const char *x,
                      long bytes, long size, vec *sums, long stride) {
    const int places = unpacked ? 4 : PLACES_OF(kind), turns = GROUP / 2 / places, groups = GROUPS_TOGETHER(kind);
    const int turn_bytes = unpacked ? places * PAIR_BYTES : UNIT_BYTES;
    const int chains = columns <= 2 ? 2 : 1;  // of sums, which do not wait for each other
    from += part * 4 * LANES;
    vec totals[TILE_COLUMNS][TILE_VECTORS];
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int v = 0; v < TILE_VECTORS; v++) totals[c][v] = splat(0);
    for (long first = 0; first < GROUPS_OF(size); first += groups) {
        const WordGroup *group[TILE_COLUMNS];
        ivec acc[TILE_COLUMNS][TILE_VECTORS][2];
        UNROLL for (int c = 0; c < columns; c++) {
            group[c] = (const WordGroup *)(x + c * bytes) + first;
            UNROLL for (int v = 0; v < TILE_VECTORS; v++) acc[c][v][0] = acc[c][v][1] = isplat(0);
        }
        NO_UNROLL for (int g = 0; g < groups; g++)
            NO_UNROLL for (int u = 0; u < turns; u++, from += turn_bytes) {
                if (!unpacked) prefetch(from + PREFETCH_DISTANCE);
                UNROLL for (int p = 0; p < places; p++) {
                    words weights[TILE_VECTORS];
                    UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
                        const char *lanes = from + v * 4 * LANES;
                        weights[v] = unpacked ? (words)load(lanes + p * PAIR_BYTES) : words_of(kind, lanes, p);
                    }
                    UNROLL for (int c = 0; c < columns; c++) {
                        int32_t pair = pair_at(group[c] + g, unpacked ? places * u + p : pair_of(kind, u, p));
                        UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
                            ivec *sum = &acc[c][v][p % chains];
                            *sum = add_products(*sum, weights[v], pair);
                            COMPUTE_NOW(*sum);
                        }
                    }
                }
            }
        UNROLL for (int c = 0; c < columns; c++)
            UNROLL for (int v = 0; v < TILE_VECTORS; v++) COMPUTE_NOW(acc[c][v][0]);
        UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
            vec factors = splat(1), offsets = splat(0);
            if (kind == INT8) factors = factors_at(panel, first * GROUP / STEP, (part + v) * LANES);
            else {
                long halves = 2 * (first * PANEL + (part + v) * LANES);
                factors = load_float16(panel->scales + halves);
                offsets = load_float16(panel->offsets + halves);
            }
            UNROLL for (int c = 0; c < columns; c++) {
                totals[c][v] += floats(acc[c][v][0] + acc[c][v][1]) * (factors * splat(group[c]->step));
                if (kind == INT4) totals[c][v] += offsets * splat(group[c]->sum);
            }
        }
    }
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int v = 0; v < TILE_VECTORS; v++) sums[v * stride + c] = totals[c][v];
}

#define WORD_TILE(kind, columns, name, unpacked)                                                                       \
    NOINLINE void word_tile_##kind##_##name(const char *from, const Panel *panel, long part, const char *x,            \
                                            long bytes, long size, vec *sums, long stride) {                           \
        word_tile(kind, columns, unpacked, from, panel, part, x, bytes, size, sums, stride);                           \
    }
#define WORD_TILES(kind)           \
    WORD_TILE(kind, 1, 1, false)   \
    WORD_TILE(kind, 2, 2, false)   \
    WORD_TILE(kind, 3, 3, false)   \
    WORD_TILE(kind, 4, 4, false)   \
    WORD_TILE(kind, 4, words, true)
WORD_TILES(INT8)
WORD_TILES(INT4)

#define WORD_CASE(kind, count)                                                                       \
    case count:                                                                                      \
        word_tile_##kind##_##count(panel->values, panel, part, from, bytes, size, to, columns);      \
        break;
#define WORD_CASES(kind) WORD_CASE(kind, 1) WORD_CASE(kind, 2) WORD_CASE(kind, 3) WORD_CASE(kind, 4)

// sums[part * columns + c]: those of part `part` of a panel's rows with column c, of columns `bytes` apart. `words`: the
// panel's values as words, or null.
static void word_dots(int kind, const Panel *panel, const char *words, long columns, const char *x, long bytes, long size,
                      vec *sums) {
    for (long c = 0; c < columns; c += TILE_COLUMNS)
        for (long part = 0; part < PANEL_VECTORS; part += TILE_VECTORS) {
            long count = min(TILE_COLUMNS, columns - c);
            const char *from = x + c * bytes;
            vec *to = sums + part * columns + c;
            if (words && count == TILE_COLUMNS) {
                if (kind == INT8) word_tile_INT8_words(words, panel, part, from, bytes, size, to, columns);
                else word_tile_INT4_words(words, panel, part, from, bytes, size, to, columns);
            } else if (kind == INT8) switch (count) { WORD_CASES(INT8) }
            else switch (count) { WORD_CASES(INT4) }
        }
}
