// What every operation of a pass works on: the program, its buffers, its threads.
#pragma once
#include "program.h"
#include "threads.h"
#include "vectors.h"

typedef struct {
    Operation *operations;
    long count;
    Sizes sizes;
    long widths[BUFFERS];
    float *buffers[BUFFERS];
    long capacity;  // columns there is room for
    bool tiled;     // the system lets the kernels use the processor's tiles
    float *partials;
    size_t partials_size;
    Team *team;
    Pass pass;
} Engine;

static float *column(const Engine *e, long buffer, long c) { return e->buffers[buffer] + c * e->widths[buffer]; }
