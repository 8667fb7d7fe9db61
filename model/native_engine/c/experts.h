// Mixtures of experts: which each column takes, and their products, so that only the weights of those are read. What a
// column gets does not depend on the others: its pairs (a column and one expert of it) are multiplied one by one or
// together, to the same bits, and added up in the order of its own choice.
#pragma once
#include "project.h"

// How probable each expert is, in the place of its logit.
static void make_probabilities(const Operation *op, float *logits, long count) {
    float greatest = logits[0], sum = 0;
    for (long i = 1; i < count; i++) greatest = logits[i] > greatest ? logits[i] : greatest;
    for (long i = 0; i < count; i++)
        sum += logits[i] = op->sigmoid ? 1 / (1 + expf(-logits[i])) : expf(logits[i] - greatest);
    for (long i = 0; !op->sigmoid && i < count; i++) logits[i] /= sum;
}

// The experts of every column, from the logits of the routers, and the pairs sorted by expert into batches.
static void choose_column(Engine *e, const Operation *op, long c, bool *taken) {
    long count = e->sizes.experts, chosen = op->chosen;
    const float *bias = op->choice_bias;
    float *probs = column(e, ROUTED, c), kept = (float)op->sum_eps;
    long *experts = e->mixture.experts + c * e->sizes.slots;
    float *weights = e->mixture.weights + c * e->sizes.slots;
    memset(taken, 0, count * sizeof *taken);
    make_probabilities(op, probs, count);
    for (long s = 0; s < chosen; s++) {
        long best = -1;
        float greatest = 0;
        for (long i = 0; i < count; i++) {
            float likely = bias ? probs[i] + bias[i] : probs[i];
            if (!taken[i] && (best < 0 || likely > greatest)) best = i, greatest = likely;
        }
        taken[best] = true;
        experts[s] = best;
        kept += weights[s] = probs[best];
    }
    if (e->pass.experts) {
        long at = (op->layer * e->pass.columns + c) * chosen;
        for (long s = 0; s < chosen; s++) e->pass.experts[at + s] = experts[s], e->pass.probs[at + s] = weights[s];
    }
    for (long s = 0; s < chosen; s++) {
        weights[s] = weights[s] / (op->renormalise ? kept : 1) * (float)op->scale;
        if (op->expert_scale) weights[s] *= op->expert_scale[experts[s]];
    }
    if (e->sizes.slots > chosen) {  // the shared one
        experts[chosen] = count;
        weights[chosen] = op->shared_gate ? 1 / (1 + expf(-column(e, SHARED, c)[0])) : 1;
    }
}

static void choose(Engine *e, Member *self, const Operation *op) {
    Mixture *mixture = &e->mixture;
    long columns = e->pass.columns, slots = e->sizes.slots, count = e->sizes.experts + 1;
    TASKS(self, only, 1) {
        long *ends = mixture->ends;
        memset(ends, 0, (count + 1) * sizeof *ends);
        for (long c = 0; c < columns; c++) {
            choose_column(e, op, c, mixture->taken);
            for (long s = 0; s < slots; s++) ends[mixture->experts[c * slots + s] + 1]++;
        }
        for (long i = 0; i < count; i++) ends[i + 1] += ends[i];
        Batches made = {0};
        for (long i = 0; i < count; i++) {
            for (long first = ends[i]; first < ends[i + 1]; first += PAIRS_PER_BATCH)
                mixture->batch[made.all++] = (Batch){i, first, min(PAIRS_PER_BATCH, ends[i + 1] - first)};
            if (i + 1 < count) made.routed = made.all;
        }
        mixture->batches[op->layer] = made;
        for (long pair = 0; pair < columns * slots; pair++) {
            long place = ends[mixture->experts[pair]]++;
            mixture->columns[place] = pair / slots;
            mixture->places[pair] = place;
        }
    }
    barrier(self, 1);
}

// The pairs of a batch as products take them: where they read columns, each is made ready in scratch memory, and so are
// those in fixed point.
static ActivationColumns ready_pairs(const Engine *e, const Operation *op, const Matrix *m, Batch batch, float *scratch) {
    long width = e->widths[READY];
    ActivationColumns pairs = {(const char *)scratch, width * sizeof(float), batch.count,
                               takes_bytes(m) && e->tiled && batch.count >= least_tiled(m->kind)};
    bool by_column = op->source == HIDDEN;
    if (!by_column && takes_floats(m)) {
        pairs.x = (const char *)column(e, op->source, batch.first);
        pairs.bytes = e->widths[op->source] * sizeof(float);
        return pairs;
    }
    for (long i = 0; i < batch.count; i++) {
        long c = by_column ? e->mixture.columns[batch.first + i] : batch.first + i;
        make_ready(&op->norm, m, column(e, op->source, c), scratch + i * width, scratch + PAIRS_PER_BATCH * width);
    }
    return pairs;
}

// Products of pairs with the matrices of their experts: tasks are rows of one expert with one batch.
static void multiply_pairs(Engine *e, Member *self, const Operation *op) {
    const Mixture *mixture = &e->mixture;
    const Matrix *shared = op->matrices + e->sizes.experts * op->parts;
    float *scratch = (float *)self->scratch, *rest = scratch + (PAIRS_PER_BATCH + 1) * e->widths[READY];
    long task_rows = rows_per_task(op, e->pass.columns), each = tasks_of(op->matrices, task_rows);
    Batches batches = mixture->batches[op->layer];
    long routed = batches.routed * each, ready = -1;
    long more = batches.all > batches.routed ? tasks_of(shared, task_rows) : 1;
    long total = routed + (batches.all - batches.routed) * more;
    ActivationColumns pairs = {0};
    add_squares_of_pairs(e, self, op);
    TASKS(self, task, total) {
        bool is_shared = task >= routed;
        long number = is_shared ? batches.routed + (task - routed) / more : task / each;
        long first = (is_shared ? (task - routed) % more : task % each) * task_rows;
        Batch batch = mixture->batch[number];
        const Matrix *m = op->matrices + batch.expert * op->parts;
        long rows = min(task_rows, m->rows - first);
        if (ready != number) pairs = ready_pairs(e, op, m, batch, scratch);
        ready = number;
        Target to = {column(e, op->target, batch.first) + first, e->widths[op->target], false};
        multiply(m, first, rows, pairs, to, rest);
        if (op->gated) {
            Target up = {column(e, op->target + 1, batch.first) + first, e->widths[op->target + 1], false};
            multiply(m + 1, first, rows, pairs, up, rest);
            for (long i = 0; i < batch.count; i++) activate(op, column_of(to, i, 0), column_of(up, i, 0), rows);
        } else if (op->activation != IDENTITY)
            for (long i = 0; i < batch.count; i++) activate(op, column_of(to, i, 0), NULL, rows);
        // Experts are of two sizes, and what reads a smaller one counts on zeros behind its end.
        for (long i = 0; i < batch.count && first + rows == m->rows; i++)
            memset(column_of(to, i, rows), 0, (PADDED(m->rows) - m->rows) * sizeof(float));
    }
#if TILES
    if (e->tiled) _tile_release();
#endif
    barrier(self, total);
}

// What the experts of a column gave, each times its weight, normalised and added to the target.
static void combine(Engine *e, Member *self, const Operation *op) {
    const Mixture *mixture = &e->mixture;
    long columns = e->pass.columns, slots = e->sizes.slots, n = e->sizes.hidden;
    TASKS(self, c, columns) {
        float *out = column(e, op->target, c), *sum = (float *)self->scratch;
        for (long i = 0; i < n; i += LANES) {
            vec value = splat(0);
            for (long s = 0; s < slots; s++)
                value += load(column(e, OUTER, mixture->places[c * slots + s]) + i) * mixture->weights[c * slots + s];
            store(sum + i, value);
        }
        if (op->norm.kind == NORM_NONE)
            for (long i = 0; i < n; i += LANES) store(out + i, load(out + i) + load(sum + i));
        else
            normalise(&op->norm, sum, out, true);
    }
    barrier(self, columns);
}
