// The program that a forward pass runs: what program.py writes and the kernels read.
// Every field takes 8 bytes, so that both sides agree without thinking of padding.
#pragma once
#include <stdint.h>

enum { FLOAT32, BFLOAT16, INT8, INT4 };  // how the numbers of a matrix or a cache are kept
enum { NORM_NONE, NORM_RMS, NORM_LAYER };
enum { EMBED, NORMALISE, MULTIPLY, ATTEND, TAP, HEAD };
enum { IDENTITY, SILU, GELU, GELU_TANH, RELU };
enum { HIDDEN, READY, QUERY, KEY, VALUE, MIXED, GATE, UP, ADDED, BUFFERS };  // per column, one position of one row

typedef struct {
    int64_t kind, rows, columns;
    const void *values, *scales, *offsets;  // int8: scales float32 (rows,); int4: both float16 (panels, groups, 16)
    const float *bias;
} Matrix;

typedef struct {
    int64_t kind, size;  // over each stretch of `size` numbers
    double eps;
    const float *weight, *bias;
} Norm;

typedef struct {
    int64_t kind, source, target;
    int64_t parts;       // MULTIPLY: matrices with targets `target`, `target` + 1, ...
    int64_t gated;       // the first part's activation times the second, in the first's target
    int64_t activation, add;  // add: to the target, instead of writing it
    int64_t layer, rope, window;  // ATTEND; -1 where there is none
    double scale, softcap;        // softcap 0: none
    Norm norm, other_norm;        // ATTEND: of queries and of keys, per head
    const Matrix *matrices;  // (parts,)
} Operation;

typedef struct {
    int64_t hidden, intermediate, heads, kv_heads, head_dim, vocab;
} Sizes;

typedef struct {  // one forward pass
    const int64_t *ids;                // (rows, length)
    int64_t rows, length, last, block;
    const int64_t *lengths, *starts;   // per row: positions in the cache, and the one in slot 0 of windowed layers
    void *const *keys, *const *values; // per layer (rows, kv_heads, slots, head_dim)
    const int64_t *slots;              // per layer
    int64_t cache_kind;
    const float *const *tables;        // per rope: cosines, sines, each (positions, dims[rope] / 2)
    const int64_t *dims;
    float *logits;                     // (rows, 1 or length, vocab)
    float *hidden;                     // (taps, rows, length, hidden), or null
} Pass;
