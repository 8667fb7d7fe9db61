// The operation that lets positions see others: it writes keys and values into the cache and reads them from there.
#pragma once
#include "attention.h"
#include "deal.h"
#include "elements.h"

// One head of one position, normalised and rotated, as it is compared with others: out may be x.
NOINLINE void prepare_head(const Engine *e, const Operation *op, const PassRow *row, const Norm *norm, long head,
                           const float *x, long position, float *out) {
    long n = op->head_dim;
    Norm own = *norm;
    if (own.apart) own.weight += head * own.apart;
    if (own.kind != NORM_NONE && !op->rotate_first)
        normalise(&own, x, out, false);
    else if (out != x)
        memcpy(out, x, n * sizeof *x);
    if (op->rope >= 0) {
        long half = e->pass.dims[op->rope] / 2;
        const float *cosines = row->tables[2 * op->rope] + position * half;
        const float *sines = row->tables[2 * op->rope + 1] + position * half;
        for (long i = 0; i < half; i++) {
            float first = out[i], second = out[i + half];
            out[i] = first * cosines[i] - second * sines[i];
            out[i + half] = second * cosines[i] + first * sines[i];
        }
    }
    if (own.kind != NORM_NONE && op->rotate_first) normalise(&own, out, out, false);
}

// The same for a query, which may grow with its position.
static void prepare_query(const Engine *e, const Operation *op, const PassRow *row, long head, const float *x,
                          long position, float *out) {
    prepare_head(e, op, row, &op->norm, head, x, position, out);
    if (!op->growth) return;
    float times = 1 + op->growth * log1p(floor(position / op->trained));
    for (long i = 0; i < op->head_dim; i++) out[i] *= times;
}

// A head in the piece of a row's cache that holds this position, or the rest of its chunk.
static CachedHead cached_head_of(const Engine *e, const Operation *op, const PassRow *row, long head, long position) {
    const Piece *first = row->pieces[op->state], *piece = first + row->piece_counts[op->state] - 1;
    while (piece > first && piece->start > position) piece--;
    long kind = e->pass.cache_kind, heads = op->kv_heads, bytes = bytes_of_vector(kind, op->head_dim);
    const char *keys = (const char *)piece->memory + (2 * op->layer * heads + head) * piece->slots * bytes;
    return (CachedHead){kind, bytes, keys, keys + heads * piece->slots * bytes, piece->start};
}

// Writes the key and the value of new position i of a row into the cache.
static void write_key_and_value(const Engine *e, const Operation *op, const PassRow *row, long head, long i,
                                float *scratch) {
    long n = op->head_dim, position = row->length + i, c = row->first + i;
    CachedHead to = cached_head_of(e, op, row, head, position);
    long offset = (position - to.start) * to.bytes;
    prepare_head(e, op, row, &op->other_norm, head, column(e, KEY, c) + head * n, position, scratch);
    write_vector(to.kind, scratch, (char *)to.keys + offset, n);
    write_vector(to.kind, column(e, VALUE, c) + head * n, (char *)to.values + offset, n);
}

// The queries of new positions first .. first + count - 1 of a row for one key-value head, position by position.
static Queries queries_of(const Engine *e, const Operation *op, const PassRow *row, long head, long first, long count,
                          bool ready, float **scratch) {
    long n = op->head_dim, size = PADDED(n), group = group_of(e, op);
    long start = row->pieces[op->state]->start, end = row->length + row->count;
    float *values = *scratch;
    int64_t *from = (int64_t *)(values + count * group * size), *to = from + count * group;
    *scratch = (float *)(to + count * group);
    for (long q = 0; q < count * group; q++) {
        long i = first + q / group, position = row->length + i;
        long own = head * group + q % group;
        const float *x = column(e, QUERY, row->first + i) + own * n;
        if (ready)
            memcpy(values + q * size, x, n * sizeof *x);
        else
            prepare_query(e, op, row, own, x, position, values + q * size);
        memset(values + q * size + n, 0, (size - n) * sizeof *x);
        from[q] = op->window < 0 ? start : max(start, position - op->window + 1);
        to[q] = i >= row->count - row->block ? end : position + 1;
    }
    return (Queries){values, from, to, count * group, n, size, op->scale, op->softcap};
}

static Partial partial_at(float *memory, const Queries *queries) {
    return (Partial){memory, memory + queries->count, memory + 2 * queries->count};
}

static void fold_partial(const Queries *queries, Partial into, Partial new) {
    for (long q = 0; q < queries->count; q++)
        fold(&into.most[q], &into.sum[q], into.mixed + q * queries->size, new.most[q], new.sum[q],
             new.mixed + q * queries->size, queries->size);
}

// The softmax of the queries of one key-value head before any position: nothing, or the sinks.
static void begin_partial(const Engine *e, const Operation *op, long head, const Queries *queries, Partial partial) {
    long group = group_of(e, op);
    memset(partial.sum, 0, queries->count * (1 + queries->size) * sizeof(float));
    for (long q = 0; q < queries->count; q++) {
        partial.most[q] = op->sinks ? op->sinks[head * group + q % group] : -INFINITY;
        partial.sum[q] = op->sinks ? 1 : 0;
    }
}

// Writes the attention output of the queries of one key-value head, first the position, then the head of its group.
static void write_mixed(const Engine *e, const Operation *op, const PassRow *row, long head, long first, const Queries *queries, Partial result) {
    long n = queries->head_dim, group = group_of(e, op);
    for (long q = 0; q < queries->count; q++) {
        float *out = column(e, MIXED, row->first + first + q / group) + (head * group + q % group) * n;
        for (long d = 0; d < n; d++) out[d] = result.mixed[q * queries->size + d] / result.sum[q];
    }
}

// A row of few new positions, first phase: each task takes one chunk of one head, and writes those of the new positions
// that lie in it.
static void attend_to_chunk(const Engine *e, Member *self, const Operation *op, const PassRow *row, long task,
                            float *partials) {
    long chunks = chunks_of(op, row), chunk = task % chunks, head = task / chunks;
    float *scratch = (float *)self->scratch, *partial = partials + task * partial_size(e, op, row);
    long base = (first_chunk(op, row) + chunk) * CHUNK, length = row->length;
    CachedHead from = cached_head_of(e, op, row, head, base);
    for (long p = max(base, length); p < min(base + CHUNK, length + row->count) && !op->reads_only; p++)
        write_key_and_value(e, op, row, head, p - length, scratch);
    Queries queries = queries_of(e, op, row, head, 0, row->count, false, &scratch);
    attend_chunk(&queries, &from, base, scratch, partial_at(partial, &queries));
    if (chunks > 1) return;
    Partial result = partial_at(scratch, &queries);
    begin_partial(e, op, head, &queries, result);
    fold_partial(&queries, result, partial_at(partial, &queries));
    write_mixed(e, op, row, head, 0, &queries, result);
}

// Second phase, where there are several chunks: each task puts those of one head together.
static void join_chunks(const Engine *e, Member *self, const Operation *op, const PassRow *row, long head, float *partials) {
    long group = group_of(e, op), chunks = chunks_of(op, row), size = partial_size(e, op, row);
    Queries queries = {.count = row->count * group, .head_dim = op->head_dim, .size = PADDED(op->head_dim)};
    Partial result = partial_at((float *)self->scratch, &queries);
    begin_partial(e, op, head, &queries, result);
    for (long chunk = 0; chunk < chunks; chunk++)
        fold_partial(&queries, result, partial_at(partials + (head * chunks + chunk) * size, &queries));
    write_mixed(e, op, row, head, 0, &queries, result);
}

// A row of many new positions, first phase: each task writes one of them, and makes its queries ready.
static void write_position(const Engine *e, Member *self, const Operation *op, const PassRow *row, long i) {
    for (long head = 0; head < op->kv_heads && !op->reads_only; head++)
        write_key_and_value(e, op, row, head, i, (float *)self->scratch);
    for (long head = 0; head < e->sizes.heads; head++) {
        float *x = column(e, QUERY, row->first + i) + head * op->head_dim;
        prepare_query(e, op, row, head, x, row->length + i, x);
    }
}

// Second phase: each task takes a strip of them for one head.
static void attend_strip(const Engine *e, Member *self, const Operation *op, const PassRow *row, long task) {
    // The last strips see most: they come first, so that no thread is left alone with one.
    long heads = op->kv_heads, strip = strips_of(row) - 1 - task / heads, head = task % heads;
    float *scratch = (float *)self->scratch;
    long first = strip * POSITIONS_PER_STRIP, count = min(POSITIONS_PER_STRIP, row->count - first);
    Queries queries = queries_of(e, op, row, head, first, count, true, &scratch);
    Partial result = partial_at(scratch, &queries);
    Partial new = partial_at(scratch + queries.count * (2 + queries.size), &queries);
    scratch += 2 * queries.count * (2 + queries.size);
    long start = queries.from[0], end = 0;
    for (long q = 0; q < queries.count; q++) end = max(end, queries.to[q]);
    begin_partial(e, op, head, &queries, result);
    for (long base = start / CHUNK * CHUNK; base < end; base += CHUNK) {
        CachedHead from = cached_head_of(e, op, row, head, base);
        attend_chunk(&queries, &from, base, scratch, new);
        fold_partial(&queries, result, new);
    }
    write_mixed(e, op, row, head, first, &queries, result);
}

static void attend(Engine *e, Member *self, const Operation *op) {
    const Deal *deal = &e->deals[op->state];
    long rows = e->pass.count, total = deal->first[rows];
    TASKS(self, task, total) {
        long r = row_of_task(deal->first, rows, task), own = task - deal->first[r];
        const PassRow *row = &e->pass.rows[r];
        if (is_long(row)) write_position(e, self, op, row, own);
        else attend_to_chunk(e, self, op, row, own, e->partials + deal->partial[r]);
    }
    barrier(self, total);
    total = deal->second[rows];
    if (!total) return;
    TASKS(self, task, total) {
        long r = row_of_task(deal->second, rows, task), own = task - deal->second[r];
        const PassRow *row = &e->pass.rows[r];
        if (is_long(row)) attend_strip(e, self, op, row, own);
        else join_chunks(e, self, op, row, own, e->partials + deal->partial[r]);
    }
    barrier(self, total);
}
