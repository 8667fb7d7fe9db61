// Panels of int8 and int4 with several columns, on processors that multiply tiles of bytes (AMX). Every sum is a whole
// number or is taken in the order of byte_dots.h, and so is the same to the bit as without tiles.
#pragma once
#include "byte_dots.h"

#if BYTE_PRODUCTS && defined(__AMX_INT8__) && defined(__linux__)
#define TILES 1
#else
#define TILES 0
#endif

#define TILE_BYTES 1024  // 16 rows of 64
#define UNPACKED(size) (GROUPS_OF(size) * (GROUP / 4) * UNIT_BYTES)  // bytes of a panel of int4, a nibble in each

// Columns from which on tiles are faster.
INLINE long least_tiled(int kind) { return kind == INT8 ? 3 : 8; }

#if !TILES
static bool tiles_allowed(void) { return false; }
#else
#include <sys/syscall.h>
#include <unistd.h>

// The tiles: two planes' sums (columns, rows of the panel), units of a panel, and bytes of a plane of the columns.
#define LOW 0
#define HIGH 1
#define INT8_UNITS 2
#define INT8_COLUMNS 3
#define INT4_UNITS 4
#define INT4_COLUMNS 5

// Asks the system to keep tiles for this process's threads. False: it does not.
static bool tiles_allowed(void) {
    const long ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ask, tile_data) == 0;
}

// Gives this thread its tiles, for up to PANEL_COLUMNS columns, until _tile_release.
static void set_tiles(long columns) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int t = LOW; t <= INT4_COLUMNS; t++) {
        shape.bytes[t] = t == INT4_COLUMNS ? GROUP : 64;
        shape.rows[t] = t == INT8_UNITS ? STEP / 4 : t == INT4_UNITS ? GROUP / 4 : columns;
    }
    // gcc's headers tell it of 8 bytes of the shape alone, and of none that tiles are loaded from.
    __asm__ volatile("" ::"r"(&shape) : "memory");
    _tile_loadconfig(&shape);
}

// A panel of int4 with a nibble in each byte: units of four elements, as int8 has them.
NOINLINE void unpack_panel(const Panel *panel, long size, char *to) {
    const __m512i low = _mm512_set1_epi8(15);
    for (long g = 0; g < GROUPS_OF(size); g++)
        UNROLL for (int u = 0; u < GROUP / 8; u++) {
            __m512i bytes = _mm512_loadu_si512(panel->values + g * GROUP_BYTES + u * UNIT_BYTES);
            char *unit = to + (g * (GROUP / 4) + u) * UNIT_BYTES;
            _mm512_storeu_si512(unit, _mm512_and_si512(bytes, low));
            _mm512_storeu_si512(unit + GROUP / 8 * UNIT_BYTES, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low));
        }
}

typedef int32_t Totals[PLANES][PANEL_COLUMNS][PANEL];

INLINE void clear_totals(void) {
    _tile_zero(LOW);
    _tile_zero(HIGH);
}

// Adds the products of a tile of units with both planes of columns from `planes` on, `bytes` apart.
#define ADD_PRODUCTS(units, columns, planes, bytes) \
    _tile_loadd(columns, (planes), bytes);          \
    _tile_dpbssd(LOW, columns, units);              \
    _tile_loadd(columns, (planes) + STEP, bytes);   \
    _tile_dpbssd(HIGH, columns, units);

INLINE void store_totals(Totals totals) {
    _tile_stored(LOW, totals[0], 64);
    _tile_stored(HIGH, totals[1], 64);
}

INLINE void totals_of(Totals totals, long column, ivec *planes) {
    UNROLL for (int p = 0; p < PLANES; p++) planes[p] = (ivec)_mm512_load_si512(totals[p][column]);
}

INLINE float step_at(const char *x, long bytes, long c) { return ((const Fixed *)(x + c * bytes))->step; }

// sums[c]: those of the rows of a panel of int8 with column c, but for the rows' scales.
NOINLINE void int8_tile_sums(const Panel *panel, long columns, const char *x, long bytes, long size, vec *sums) {
    _Alignas(64) Totals totals;
    for (long c = 0; c < columns; c++) sums[c] = splat(0);
    for (long k = 0; k < size; k += STEP) {
        const char *from = panel->values + k * PANEL;
        vec factors = factors_at(panel, k / STEP, 0);
        clear_totals();
        for (int line = 0; line < TILE_BYTES; line += 64) __builtin_prefetch(from + line + PREFETCH_DISTANCE, 0, 2);
        _tile_loadd(INT8_UNITS, from, UNIT_BYTES);
        ADD_PRODUCTS(INT8_UNITS, INT8_COLUMNS, plane_at((const Fixed *)x, 0, k), bytes)
        store_totals(totals);
        for (long c = 0; c < columns; c++) {
            ivec planes[PLANES];
            totals_of(totals, c, planes);
            sums[c] += floats(sum_of_planes(planes)) * factors;
        }
    }
    for (long c = 0; c < columns; c++) sums[c] *= step_at(x, bytes, c);
}

// The same for a panel of int4, whose nibbles `unpacked` has.
NOINLINE void int4_tile_sums(const Panel *panel, const char *unpacked, long columns, const char *x, long bytes, long size,
                          vec *sums) {
    _Alignas(64) Totals totals;
    for (long c = 0; c < columns; c++) sums[c] = splat(0);
    for (long g = 0; g < GROUPS_OF(size); g++) {
        vec scales = load_float16(panel->scales + 2 * g * PANEL), offsets = load_float16(panel->offsets + 2 * g * PANEL);
        clear_totals();
        _tile_loadd(INT4_UNITS, unpacked + g * (GROUP / 4) * UNIT_BYTES, UNIT_BYTES);
        ADD_PRODUCTS(INT4_UNITS, INT4_COLUMNS, plane_at((const Fixed *)x, 0, g * GROUP), bytes)
        store_totals(totals);
        for (long c = 0; c < columns; c++) {
            ivec planes[PLANES];
            totals_of(totals, c, planes);
            sums[c] += floats(sum_of_planes(planes)) * scales;
            sums[c] += splat(group_sums((const Fixed *)(x + c * bytes), size)[g]) * offsets;
        }
    }
    for (long c = 0; c < columns; c++) sums[c] *= step_at(x, bytes, c);
}

#endif
