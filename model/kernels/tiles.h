// int8 and int4 rows with several columns, on processors that multiply tiles of bytes (AMX). Every sum is a whole number
// or is taken in the order of byte_dots.h, and so is the same to the bit as without tiles.
#pragma once
#include "byte_panels.h"

#if BYTE_PRODUCTS && defined(__AMX_INT8__) && defined(__linux__)
#define TILES 1
#else
#define TILES 0
#endif

#define BAND 16          // columns that come side by side in a tile
#define TILE_BYTES 1024  // 16 rows of 64

// Columns from which on tiles are faster.
INLINE long least_tiled(int kind) { return kind == INT8 ? 3 : 8; }

#if TILES
#include <sys/syscall.h>
#include <unistd.h>

// The tiles: three planes' sums (rows of weights, columns), rows of weights of int8 and of int4, and columns for them.
#define LOW 0
#define MIDDLE 1
#define HIGH 2
#define INT8_ROWS 3
#define INT8_COLUMNS 4
#define INT4_ROWS 5
#define INT4_COLUMNS 6

// Asks the system to keep tiles for this process's threads. False: it does not.
static bool tiles_allowed(void) {
    const long ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ask, tile_data) == 0;
}

// Gives this thread its tiles, until _tile_release.
static void set_tiles(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int t = LOW; t <= INT4_COLUMNS; t++) {
        shape.bytes[t] = t == INT4_ROWS ? GROUP : STEP_BYTES;
        shape.rows[t] = t == INT4_COLUMNS ? GROUP / 4 : 16;
    }
    _tile_loadconfig(&shape);
}

// Columns in fixed point, BAND of them. Behind it the sums of int4's groups (groups, BAND), then, for each step and plane
// of it, a tile: row j has, for each column, elements 4 * j ... 4 * j + 3.
typedef struct {
    vec steps;
} Band;

INLINE float *band_sums(const Band *band) { return (float *)(band + 1); }
INLINE char *band_tiles(const Band *band, long size) { return (char *)(band_sums(band) + PADDED(size) / GROUP * BAND); }

// Four bytes of each of BAND columns, four times over: row j has bytes 4 * j ... 4 * j + 3 of each.
INLINE void side_by_side(const __m128i *bytes, char *rows) {
    __m512i some[4];
    UNROLL for (int j = 0; j < 4; j++) {
        some[j] = _mm512_castsi128_si512(bytes[j]);
        some[j] = _mm512_inserti32x4(some[j], bytes[4 + j], 1);
        some[j] = _mm512_inserti32x4(some[j], bytes[8 + j], 2);
        some[j] = _mm512_inserti32x4(some[j], bytes[12 + j], 3);
    }
    __m512i a = _mm512_unpacklo_epi32(some[0], some[1]), b = _mm512_unpacklo_epi32(some[2], some[3]);
    __m512i c = _mm512_unpackhi_epi32(some[0], some[1]), d = _mm512_unpackhi_epi32(some[2], some[3]);
    _mm512_storeu_si512(rows, _mm512_unpacklo_epi64(a, b));
    _mm512_storeu_si512(rows + 64, _mm512_unpackhi_epi64(a, b));
    _mm512_storeu_si512(rows + 128, _mm512_unpacklo_epi64(c, d));
    _mm512_storeu_si512(rows + 192, _mm512_unpackhi_epi64(c, d));
}

// Up to BAND columns of x (size,), `stride` apart, as a band; it takes no more memory than BAND times FIXED_BYTES.
APART void to_band(int kind, const float *x, long stride, long count, long size, Band *out) {
    float inverse[BAND], *steps = (float *)&out->steps;
    __m128i bytes[PLANES][BAND] = {0};
    for (long c = 0; c < count; c++) steps[c] = step_of(x + c * stride, size, &inverse[c]);
    for (long c = count; c < BAND; c++) steps[c] = 0;
    for (long i = 0; i < (size + STEP_BYTES - 1) / STEP_BYTES * STEP_BYTES; i += LANES) {
        for (long c = 0; c < count; c++) {
            ivec q = q_of(x + c * stride, i, size, inverse[c]), parts[PLANES];
            split(q, parts);
            UNROLL for (int p = 0; p < PLANES; p++) bytes[p][c] = _mm512_cvtepi32_epi8((__m512i)parts[p]);
            if (kind == INT4 && i % GROUP == 0 && i < size)
                band_sums(out)[i / GROUP * BAND + c] =
                    _mm512_reduce_add_epi32((__m512i)(q + q_of(x + c * stride, i + LANES, size, inverse[c])));
        }
        char *to = band_tiles(out, size) + i / STEP_BYTES * PLANES * TILE_BYTES + i % STEP_BYTES / 4 * 64;
        UNROLL for (int p = 0; p < PLANES; p++) side_by_side(bytes[p], to + p * TILE_BYTES);
    }
}

typedef struct {  // a group of int4 of LANES rows
    char nibbles[LANES][GROUP];
    float scales[LANES], offsets[LANES];
} GroupTile;

#define TILED_BYTES(size) (((size) + STEP_BYTES - 1) / STEP_BYTES * 2 * (long)sizeof(GroupTile))  // of LANES rows

// LANES rows as tiles take them, in `memory` if they are not yet so: int4 unpacked, and nothing behind an end.
APART const char *tiled_rows(int kind, const Rows *rows, long size, char *memory) {
    long groups = PADDED(size) / GROUP, pitch = (size + STEP_BYTES - 1) / STEP_BYTES * STEP_BYTES;
    if (kind == INT8) {
        if (rows->count == LANES && rows->pitch == pitch) return rows->values;
        memset(memory, 0, LANES * pitch);
        for (long r = 0; r < rows->count; r++) memcpy(memory + r * pitch, rows->values + r * rows->pitch, size);
        return memory;
    }
    const __m128i low = _mm_set1_epi8(15);
    for (long r = 0; r < LANES; r++) {
        long from = min(r, rows->count - 1);
        for (long g = 0; g < groups; g++) {
            GroupTile *to = (GroupTile *)memory + g;
            __m128i bytes = _mm_loadu_si128((const __m128i *)(rows->values + from * rows->pitch + g * (GROUP / 2)));
            _mm_storeu_si128((__m128i *)to->nibbles[r], _mm_and_si128(bytes, low));
            _mm_storeu_si128((__m128i *)(to->nibbles[r] + 16), _mm_and_si128(_mm_srli_epi16(bytes, 4), low));
            to->scales[r] = rows->scales[from * groups + g];
            to->offsets[r] = rows->offsets[from * groups + g];
        }
    }
    return memory;
}

// Lane c of row r becomes lane r of row c.
INLINE void transpose(vec *rows) {
    UNROLL for (int step = LANES / 2; step; step /= 2)
        UNROLL for (int i = 0; i < LANES; i++)
            if (!(i & step)) {
                vec a = rows[i], b = rows[i + step];
                rows[i] = own_lanes(a, b, step);
                rows[i + step] = other_lanes(a, b, step);
            }
}

typedef int32_t Totals[PLANES][LANES][BAND];

INLINE void clear_totals(void) {
    _tile_zero(LOW);
    _tile_zero(MIDDLE);
    _tile_zero(HIGH);
}

// Adds the products of a tile of rows with the three planes of columns at `tiles`.
#define ADD_PRODUCTS(rows, columns, tiles)             \
    _tile_loadd(columns, (tiles), 64);                  \
    _tile_dpbssd(LOW, rows, columns);                   \
    _tile_loadd(columns, (tiles) + TILE_BYTES, 64);     \
    _tile_dpbssd(MIDDLE, rows, columns);                \
    _tile_loadd(columns, (tiles) + 2 * TILE_BYTES, 64); \
    _tile_dpbssd(HIGH, rows, columns);

INLINE void store_totals(Totals totals) {
    _tile_stored(LOW, totals[0], 64);
    _tile_stored(MIDDLE, totals[1], 64);
    _tile_stored(HIGH, totals[2], 64);
}

INLINE ivec total_of(Totals totals, int plane, int row) { return (ivec)_mm512_load_si512(totals[plane][row]); }

// sums[c]: those of LANES rows of int8 with column c of a band.
APART void int8_tile_sums(const char *rows, const Band *band, long size, vec *sums) {
    _Alignas(64) Totals totals;
    long steps = (size + STEP_BYTES - 1) / STEP_BYTES, pitch = steps * STEP_BYTES;
    const char *tiles = band_tiles(band, size), *next = rows + LANES * pitch + AHEAD;  // the first step reads every row
    clear_totals();
    for (long s = 0; s < steps; s++, tiles += PLANES * TILE_BYTES) {
        for (int line = 0; line < TILE_BYTES; line += 64) __builtin_prefetch(next + s * TILE_BYTES + line, 0, 2);
        _tile_loadd(INT8_ROWS, rows + s * STEP_BYTES, pitch);
        ADD_PRODUCTS(INT8_ROWS, INT8_COLUMNS, tiles)
    }
    store_totals(totals);
    UNROLL for (int r = 0; r < LANES; r++) {
        vec sum = splat(0);
        UNROLL for (int p = PLANES - 1; p >= 0; p--) sum = sum * 256 + floats(total_of(totals, p, r));
        sums[r] = sum * band->steps;
    }
    transpose(sums);
}

// The same for rows of int4.
APART void int4_tile_sums(const char *rows, const Band *band, long size, vec *sums) {
    _Alignas(64) Totals totals;
    vec acc[4][LANES];  // of the groups i, i + 4, ...
    memset(acc, 0, sizeof acc);
    for (long g = 0; g < PADDED(size) / GROUP; g++) {
        const GroupTile *group = (const GroupTile *)rows + g;
        const char *tiles = band_tiles(band, size) + g / 2 * PLANES * TILE_BYTES + g % 2 * (TILE_BYTES / 2);
        vec columns = load(band_sums(band) + g * BAND);
        clear_totals();
        _tile_loadd(INT4_ROWS, group->nibbles, GROUP);
        ADD_PRODUCTS(INT4_ROWS, INT4_COLUMNS, tiles)
        store_totals(totals);
        UNROLL for (int r = 0; r < LANES; r++) {
            ivec total = (((total_of(totals, 2, r) << 8) + total_of(totals, 1, r)) << 8) + total_of(totals, 0, r);
            vec *to = &acc[g % 4][r];
            *to += floats(total) * splat(group->scales[r]);
            *to += columns * splat(group->offsets[r]);
        }
    }
    UNROLL for (int r = 0; r < LANES; r++) sums[r] = OVER_GROUPS(acc, r) * band->steps;
    transpose(sums);
}

#endif
