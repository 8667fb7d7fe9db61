// int4 rows with many columns: nibbles are unpacked once, into panels in which a lane is a row. Every sum is taken in the
// order of byte_dots.h, and so is the same to the bit.
#pragma once
#include "byte_dots.h"

#if BYTE_PRODUCTS

typedef struct {  // a group of LANES rows: vector j has, for each row, elements 4 * j ... 4 * j + 3
    __m512i nibbles[GROUP / 4];
    vec scales, offsets;
} GroupPanel;

// LANES rows as panels, one for each group; rows behind the last are as good as any.
APART void unpack_rows(const Rows *rows, long size, GroupPanel *panels) {
    const __m512i low = _mm512_set1_epi8(15);
    long groups = PADDED(size) / GROUP;
    ivec row = pick_int(iota() < (int32_t)rows->count, iota(), isplat(rows->count - 1));
    __m512i at = (__m512i)(row * (int32_t)rows->pitch), of = (__m512i)(row * (int32_t)groups);
    for (long g = 0; g < groups; g++) {
        GroupPanel *to = &panels[g];
        UNROLL for (int j = 0; j < GROUP / 8; j++) {
            __m512i bytes = _mm512_i32gather_epi32(at, rows->values + g * (GROUP / 2) + 4 * j, 1);
            to->nibbles[j] = _mm512_and_si512(bytes, low);
            to->nibbles[j + GROUP / 8] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
        }
        to->scales = (vec)_mm512_i32gather_ps(of, rows->scales + g, 4);
        to->offsets = (vec)_mm512_i32gather_ps(of, rows->offsets + g, 4);
    }
}

// The sum of the sums of groups i, i + 4, ... for column c, as sum_floats_across takes it.
#define OVER_GROUPS(acc, c) (((acc)[0][c] + (acc)[2][c]) + ((acc)[1][c] + (acc)[3][c]))

// The sums of LANES rows with up to AT_HAND columns, `bytes` apart.
APART void panel_sums(const GroupPanel *panels, long columns, const char *x, long bytes, long size, vec *sums) {
    vec acc[4][AT_HAND];  // of the groups i, i + 4, ...
    for (int i = 0; i < 4; i++)
        for (long c = 0; c < columns; c++) acc[i][c] = splat(0);
    for (long g = 0; g < PADDED(size) / GROUP; g++) {
        const GroupPanel *panel = &panels[g];
        for (long c = 0; c < columns; c++) {
            const Fixed *column = (const Fixed *)(x + c * bytes);
            const char *planes = (const char *)(column + 1) + g / 4 * SPAN * PLANES + g % 4 * 16;
            ivec total = isplat(0);
            UNROLL for (int p = PLANES - 1; p >= 0; p--) {
                ivec sum = isplat(0);
                UNROLL for (int j = 0; j < GROUP / 4; j++) {
                    int32_t four;
                    memcpy(&four, planes + (j / 4 * PLANES + p) * STEP_BYTES + j % 4 * 4, 4);
                    sum = (ivec)_mm512_dpbusd_epi32((__m512i)sum, panel->nibbles[j], _mm512_set1_epi32(four));
                }
                total = p == PLANES - 1 ? sum : (total << 8) + sum;
            }
            vec *to = &acc[g % 4][c];
            *to += floats(total) * panel->scales;
            *to += splat(group_sums(column, size)[g * ROWS]) * panel->offsets;
        }
    }
    for (long c = 0; c < columns; c++) sums[c] = OVER_GROUPS(acc, c) * ((const Fixed *)(x + c * bytes))->step;
}

#endif
