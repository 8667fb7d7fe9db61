// The tile instructions (AMX) in plain C, for processors without them: what the manual says each does.
// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBSSD, TILELOADD, LDTILECFG.
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#undef __AMX_INT8__
#define __AMX_INT8__ 1
#define syscall(...) 0  // the system always agrees

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} EmulatedShape;

static _Thread_local EmulatedShape emulated_shape;
static _Thread_local int8_t emulated_tiles[8][16][64];

static inline void emulate_config(const void *shape) {
    memcpy(&emulated_shape, shape, sizeof emulated_shape);
    memset(emulated_tiles, 0, sizeof emulated_tiles);
}

static inline void emulate_tile_load(int tile, const void *from, long stride) {
    memset(emulated_tiles[tile], 0, sizeof emulated_tiles[tile]);
    for (int r = 0; r < emulated_shape.rows[tile]; r++)
        memcpy(emulated_tiles[tile][r], (const char *)from + r * stride, emulated_shape.bytes[tile]);
}

static inline void emulate_tile_store(int tile, void *to, long stride) {
    for (int r = 0; r < emulated_shape.rows[tile]; r++)
        memcpy((char *)to + r * stride, emulated_tiles[tile][r], emulated_shape.bytes[tile]);
}

static inline void emulate_tile_products(int sums, int a, int b) {
    for (int m = 0; m < emulated_shape.rows[sums]; m++)
        for (int n = 0; n < emulated_shape.bytes[sums] / 4; n++) {
            int32_t sum;
            memcpy(&sum, &emulated_tiles[sums][m][4 * n], 4);
            for (int k = 0; k < emulated_shape.bytes[a] / 4 && k < emulated_shape.rows[b]; k++)
                for (int i = 0; i < 4; i++) sum += emulated_tiles[a][m][4 * k + i] * emulated_tiles[b][k][4 * n + i];
            memcpy(&emulated_tiles[sums][m][4 * n], &sum, 4);
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#define _tile_loadconfig emulate_config
#define _tile_release() ((void)0)
#define _tile_zero(tile) memset(emulated_tiles[tile], 0, sizeof emulated_tiles[tile])
#define _tile_loadd emulate_tile_load
#define _tile_stored emulate_tile_store
#define _tile_dpbssd emulate_tile_products
