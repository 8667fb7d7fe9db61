// Keys and values as the cache holds them: each a vector of float32 or bfloat16, or of int8 with its scale (float32)
// behind its numbers.
#pragma once
#include <stdbool.h>
#include "program.h"
#include "vectors.h"

#define GREATEST_CACHED 127         // of an int8
#define LEAST_CACHED_SCALE 0x1p-100f  // a vector that would take a smaller one is kept as zeros

typedef struct {  // keys and values of one head of one row, slot 0 being position `start`
    int kind;
    long bytes;  // of a key or a value
    const char *keys, *values;
    long start;
} CachedHead;

INLINE long bytes_of_number(int kind) { return kind == FLOAT32 ? 4 : kind == BFLOAT16 ? 2 : 1; }

static long bytes_of_vector(int kind, long n) { return n * bytes_of_number(kind) + (kind == INT8 ? sizeof(float) : 0); }

INLINE vec cached_numbers(int kind, const char *vector, long d) {
    switch (kind) {
        case FLOAT32: return load(vector + 4 * d);
        case BFLOAT16: return load_bfloat16(vector + 2 * d);
        default: return floats(widen_int8(vector + d));
    }
}

// The numbers from d on of a vector of n; behind its end zeros.
INLINE vec last_cached_numbers(int kind, const char *vector, long d, long n) {
    char bytes[4 * LANES] = {0};
    memcpy(bytes, vector + d * bytes_of_number(kind), (n - d) * bytes_of_number(kind));
    return cached_numbers(kind, bytes, 0);
}

// A vector as float32, without the scale of int8.
INLINE void widen_vector(int kind, const char *vector, long n, float *to) {
    long whole = n / LANES * LANES;
    for (long d = 0; d < whole; d += LANES) store(to + d, cached_numbers(kind, vector, d));
    if (whole < n) store_some(to + whole, last_cached_numbers(kind, vector, whole, n), n - whole);
}

// The scales of `count` vectors of int8 side by side.
static void read_scales(const char *vectors, long bytes, long count, float *scales) {
    for (long i = 0; i < count; i++) memcpy(scales + i, vectors + (i + 1) * bytes - sizeof *scales, sizeof *scales);
}

// Rounds to the nearest of 255 steps. A number that is not finite makes the scale, and so every number, none.
NOINLINE void write_int8(const float *x, char *to, long n) {
    float most = 0, poison = 0;
    for (long i = 0; i < n; i++) {
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
        poison += x[i] * 0;
    }
    float scale = most / GREATEST_CACHED;
    bool kept = scale > LEAST_CACHED_SCALE && poison == 0;
    for (long i = 0; i < n; i++) to[i] = kept ? (int8_t)rintf(x[i] / scale) : 0;
    scale += poison;
    memcpy(to + n, &scale, sizeof scale);
}

static void write_vector(int kind, const float *x, char *to, long n) {
    if (kind == FLOAT32) memcpy(to, x, n * sizeof *x);
    else if (kind == INT8) write_int8(x, to, n);
    else
        for (long i = 0; i < n; i++) {
            uint16_t rounded = to_bfloat16(x[i]);
            memcpy(to + 2 * i, &rounded, 2);
        }
}
