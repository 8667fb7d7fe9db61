// The program that a forward pass runs: what program.py writes and the kernels read.
// Every field takes 8 bytes, so that both sides agree without thinking of padding.
#pragma once
#include <stdint.h>

enum { FLOAT32, BFLOAT16, INT8, INT4 };  // how the numbers of a matrix or a cache are kept
enum { NORM_NONE, NORM_RMS, NORM_LAYER, NORM_SCALE };  // SCALE only multiplies by the weight
enum { EMBED, NORMALISE, MULTIPLY, ATTEND, TAP, HEAD, CHOOSE, MULTIPLY_PAIRS, COMBINE, CONVOLVE, RECUR, OPEN, TIMES };
enum { IDENTITY, SILU, GELU, GELU_TANH, RELU, RELU_SQUARED, XIELU, CLAMPED_SWIGLU };
// Per column, which is one position of one row; from INNER on, per pair of a column and one of its experts.
enum {
    HIDDEN, READY, QUERY, KEY, VALUE, OPENING, MIXED, GATE, UP, ADDED, TOKEN_ROWS, ROUTED, SHARED, INNER, INNER_UP, OUTER,
    BUFFERS
};

typedef struct {
    int64_t kind, rows, columns;
    const void *values, *scales, *offsets;  // int8: scales float32 (rows,); int4: both float16 (panels, groups, 16)
    const uint8_t *factors;  // int8: (panels, steps, 16), or null, where all are 1
    const float *bias;
    double *squares;  // (columns,) to which those of what it multiplies are added, or null
} Matrix;

typedef struct {
    int64_t kind, size;  // over each `size` numbers side by side
    double eps;
    const float *weight, *bias;
    int64_t apart;  // ATTEND: from a head's weights to the next head's; 0 where all have the same
} Norm;

typedef struct {
    int64_t kind, source, target;
    int64_t experts;     // MULTIPLY_PAIRS: how many have matrices, the shared one included; 0 elsewhere
    int64_t parts;       // MULTIPLY: matrices with targets `target`, `target` + 1, ...; NORMALISE: stretches side by side
    int64_t gated;       // the first part's activation times the second, in the first's target
    int64_t activation, add;  // add: to the target, instead of writing it
    int64_t first, size;      // TIMES: the stretch of the source
    int64_t state, layer;  // of layers that keep the same, and which it is of them; TAP and CHOOSE: which it is of its kind
    int64_t rope, window;  // ATTEND; -1 where there is none; all windows are of one size
    int64_t kv_heads, head_dim;  // ATTEND; OPEN: the size of a head
    int64_t reads_only;    // ATTEND: keys and values are written by another operation
    int64_t rotate_first;  // ATTEND: the norms come after the rotation
    int64_t taps;            // CONVOLVE and RECUR: positions that are mixed
    int64_t key_heads, value_heads, key_dim, value_dim;  // RECUR
    int64_t by_head;              // OPEN: a gate for each head, not for each number of it
    int64_t chosen;               // CHOOSE: experts of a column
    int64_t sigmoid, renormalise; // CHOOSE: probabilities are no softmax; the weights add up to 1
    int64_t shared_gate;          // CHOOSE: the shared expert counts the sigmoid of a logit, else it counts whole
    double scale, softcap;        // softcap 0: none
    double growth, trained;       // ATTEND: queries times 1 + growth * ln(1 + floor(position / trained))
    double above, below;          // XIELU: factors above and below 0; CLAMPED_SWIGLU: limit and alpha
    double sum_eps;               // CHOOSE: added to the sum of the weights
    Norm norm, other_norm;        // ATTEND: of queries and of keys, per head; COMBINE: of the sum, before it is added
    const float *sinks;      // ATTEND: a logit for each query head, or null
    const float *kernel, *kernel_bias;  // CONVOLVE: (taps, hidden), and (hidden,) or null; RECUR: (taps, channels)
    const float *rates;      // RECUR: A_log and dt_bias, each (value_heads,)
    const float *choice_bias;  // CHOOSE: (experts,), beside the probabilities, only to choose; or null
    const float *expert_scale;  // CHOOSE: (experts,), on their weights at last; or null
    const Matrix *matrices;  // (parts,); MULTIPLY_PAIRS: (experts, parts)
} Operation;

typedef struct {
    int64_t hidden, intermediate, heads, query, key, vocab;  // query and key: all heads' of the widest layer
    int64_t token_rows;             // all layers', side by side; 0 where there are none
    int64_t experts, slots, inner;  // of mixtures: experts but for the shared one, pairs of a column, the widest expert
} Sizes;

typedef struct {  // what a row has of the layers that keep the same: of attention keys and values
    void *memory;   // (layers, 2, kv_heads, slots) vectors, as cached.h has them; of convolutions (layers, heads, slots); of
                    // recurrences (layers, size) of float32 in two pieces: the state before the pass, or null, and after
    int64_t slots;  // of which slot 0 is position `start`
    int64_t start;
} Piece;

typedef struct {  // what a row of the cache brings to a pass
    int64_t first, count;       // its new positions among the columns
    int64_t outputs;            // how many of the last of them have their logits computed
    int64_t block;              // the last so many see each other
    int64_t length;             // positions in the cache
    const Piece *const *pieces; // per state: one behind the other, each but the first from a multiple of CHUNK on; new
    const int64_t *piece_counts;  // positions are written to the last
    const float *const *tables; // per rope: cosines, sines, each (positions, dims[rope] / 2)
} PassRow;

typedef struct {  // one forward pass; its columns are the new positions of all rows, one row behind the other
    const int64_t *ids;   // (columns,)
    int64_t columns, count;
    const PassRow *rows;  // (count,)
    int64_t cache_kind;
    const int64_t *dims;  // per rope
    float *logits;        // (outputs of all rows, vocab)
    float *hidden;        // (taps, columns, hidden), or null
    int64_t *experts;     // (layers with experts, columns, chosen), or null; and their probabilities
    float *probs;
} Pass;
