// What model/native_engine/facts.py compares with its own numbers, and what these kernels were compiled for.
#pragma once
#include "attention.h"
#include "measure.h"
#include "products.h"

enum { DONE, NO_MEMORY, NO_SUCH_TOKEN };

// Tells every fact by its name.
void tokenglass_facts(void (*tell)(const char *name, int64_t value)) {
#define SIZE(type) tell(#type, sizeof(type));
#define NUMBER(name) tell(#name, name);
    SIZE(Matrix) SIZE(Norm) SIZE(Operation) SIZE(Sizes) SIZE(PassRow) SIZE(Pass)
    SIZE(Measurement) SIZE(Measuring) SIZE(TokenMeasuring)
    NUMBER(FLOAT32) NUMBER(BFLOAT16) NUMBER(INT8) NUMBER(INT4)
    NUMBER(EMBED) NUMBER(NORMALISE) NUMBER(MULTIPLY) NUMBER(ATTEND) NUMBER(TAP) NUMBER(HEAD)
    NUMBER(CHOOSE) NUMBER(MULTIPLY_PAIRS) NUMBER(COMBINE) NUMBER(CONVOLVE) NUMBER(RECUR) NUMBER(OPEN) NUMBER(TIMES)
    NUMBER(IDENTITY) NUMBER(SILU) NUMBER(GELU) NUMBER(GELU_TANH) NUMBER(RELU) NUMBER(RELU_SQUARED) NUMBER(XIELU) NUMBER(CLAMPED_SWIGLU)
    NUMBER(HIDDEN) NUMBER(READY) NUMBER(QUERY) NUMBER(KEY) NUMBER(VALUE) NUMBER(OPENING) NUMBER(MIXED) NUMBER(GATE) NUMBER(UP) NUMBER(ADDED)
    NUMBER(TOKEN_ROWS)
    NUMBER(ROUTED) NUMBER(SHARED) NUMBER(INNER) NUMBER(INNER_UP) NUMBER(OUTER)
    NUMBER(NORM_NONE) NUMBER(NORM_RMS) NUMBER(NORM_LAYER) NUMBER(NORM_SCALE)
    NUMBER(DONE) NUMBER(NO_MEMORY) NUMBER(NO_SUCH_TOKEN)
    NUMBER(GROUP) NUMBER(PANEL) NUMBER(STEP) NUMBER(CHUNK) NUMBER(MAX_WANTED)
    NUMBER(LANES) NUMBER(BYTE_PRODUCTS)
    tell("UNIT", UNIT_BYTES / PANEL);
    tell("TILES", tiles_allowed());
    tell("LEAST_TILED_INT8", least_tiled(INT8));
    tell("LEAST_TILED_INT4", least_tiled(INT4));
#undef SIZE
#undef NUMBER
}
