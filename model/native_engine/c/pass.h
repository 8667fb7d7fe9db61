// What every operation of a pass works on: the program, its buffers, its threads.
#pragma once
#include "program.h"
#include "threads.h"
#include "vectors.h"

typedef struct {  // how attention in layers that keep the same is dealt out: what is before a row, and of all rows at the end
    long *first, *second;  // tasks of its two phases
    long *partial;         // numbers of partial results
} Deal;

#define PAIRS_PER_BATCH 64  // that an expert's rows are read for

typedef struct {
    long expert, first, count;
} Batch;

typedef struct {
    long all, routed;  // those before the shared expert's
} Batches;

typedef struct {  // which experts the columns take in the layer at hand; a pair is a column and one of its experts
    long *experts;   // (columns, slots)
    float *weights;  // (columns, slots)
    long *places;    // (columns, slots): where a pair stands when they are sorted by expert
    long *columns;   // of a pair, by its place
    long *ends;      // per expert, of its pairs
    bool *taken;     // per expert, by the column at hand
    Batch *batch;
    Batches *batches;  // per layer: threads that come late ask for those of layers that others are done with
} Mixture;

typedef struct {
    Operation *operations;
    long count;
    Sizes sizes;
    long widths[BUFFERS];
    float *buffers[BUFFERS];
    long capacity;  // columns there is room for
    long *positions;  // per column, in its row
    long *outputs;    // the columns whose logits are computed
    long output_count;
    long states;
    const Operation **readers;  // per state, the first operation that attends to it
    Deal *deals;      // per state
    long *dealt;      // the memory of these
    long row_capacity;
    Mixture mixture;
    bool tiled;     // the system lets the kernels use the processor's tiles
    float *partials;
    size_t partials_size;
    Team *team;
    bool lost;  // pages of the weights are zeros now: no pass gives the model's numbers any more
    Pass pass;
} Engine;

static float *column(const Engine *e, long buffer, long c) { return e->buffers[buffer] + c * e->widths[buffer]; }
