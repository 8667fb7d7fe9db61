// The operation that lets positions see others: it writes keys and values into the cache and reads them from there.
#pragma once
#include "attention.h"
#include "elements.h"
#include "pass.h"

#define SPLIT 8             // new positions up to which the cache is dealt out by chunks, and beyond by queries
#define STRIP 16            // new positions in a task that is dealt out by queries

// One head of one position, normalised and rotated, as it is compared with others: out may be x.
APART void prepare_head(const Engine *e, const Operation *op, const Norm *norm, const float *x, long position, float *out) {
    long n = e->sizes.head_dim;
    if (norm->kind != NORM_NONE)
        normalise(norm, x, out, false);
    else if (out != x)
        memcpy(out, x, n * sizeof *x);
    if (op->rope < 0) return;
    long half = e->pass.dims[op->rope] / 2;
    const float *cosines = e->pass.tables[2 * op->rope] + position * half;
    const float *sines = e->pass.tables[2 * op->rope + 1] + position * half;
    for (long i = 0; i < half; i++) {
        float first = out[i], second = out[i + half];
        out[i] = first * cosines[i] - second * sines[i];
        out[i + half] = second * cosines[i] + first * sines[i];
    }
}

static void keep(int kind, const float *x, char *to, long n) {
    if (kind == FLOAT32)
        memcpy(to, x, n * sizeof *x);
    else
        for (long i = 0; i < n; i++) {
            uint16_t rounded = to_bfloat16(x[i]);
            memcpy(to + 2 * i, &rounded, 2);
        }
}

static Store store_of(const Engine *e, const Operation *op, long row, long head) {
    const Pass *pass = &e->pass;
    long bytes = e->sizes.head_dim * (pass->cache_kind == FLOAT32 ? 4 : 2);
    long offset = (row * e->sizes.kv_heads + head) * pass->slots[op->layer] * bytes;
    return (Store){pass->cache_kind, (const char *)pass->keys[op->layer] + offset,
                   (const char *)pass->values[op->layer] + offset, op->window < 0 ? 0 : pass->starts[row]};
}

// Writes the key and the value of new position i of a row into the cache.
static void remember(const Engine *e, const Operation *op, long row, long head, long i, float *scratch) {
    const Pass *pass = &e->pass;
    Store to = store_of(e, op, row, head);
    long n = e->sizes.head_dim, position = pass->lengths[row] + i, c = row * pass->length + i;
    long offset = (position - to.start) * n * (to.kind == FLOAT32 ? 4 : 2);
    prepare_head(e, op, &op->other_norm, column(e, KEY, c) + head * n, position, scratch);
    keep(to.kind, scratch, (char *)to.keys + offset, n);
    keep(to.kind, column(e, VALUE, c) + head * n, (char *)to.values + offset, n);
}

// The queries of new positions first .. first + count - 1 of a row for one key-value head, position by position.
static Queries queries_of(const Engine *e, const Operation *op, long row, long head, long first, long count, bool ready,
                          float **scratch) {
    const Pass *pass = &e->pass;
    long n = e->sizes.head_dim, size = PADDED(n), group = e->sizes.heads / e->sizes.kv_heads;
    long start = op->window < 0 ? 0 : pass->starts[row], end = pass->lengths[row] + pass->length;
    float *values = *scratch;
    int64_t *from = (int64_t *)(values + count * group * size), *to = from + count * group;
    *scratch = (float *)(to + count * group);
    for (long q = 0; q < count * group; q++) {
        long i = first + q / group, position = pass->lengths[row] + i;
        const float *x = column(e, QUERY, row * pass->length + i) + (head * group + q % group) * n;
        if (ready)
            memcpy(values + q * size, x, n * sizeof *x);
        else
            prepare_head(e, op, &op->norm, x, position, values + q * size);
        memset(values + q * size + n, 0, (size - n) * sizeof *x);
        from[q] = op->window < 0 ? start : max(start, position - op->window + 1);
        to[q] = i >= pass->length - pass->block ? end : position + 1;
    }
    return (Queries){values, from, to, count * group, n, size, op->scale, op->softcap};
}

static Partial partial_at(float *memory, const Queries *queries) {
    return (Partial){memory, memory + queries->count, memory + 2 * queries->count};
}

static void fold_all(const Queries *queries, Partial into, Partial new) {
    for (long q = 0; q < queries->count; q++)
        fold(&into.most[q], &into.sum[q], into.mixed + q * queries->size, new.most[q], new.sum[q],
             new.mixed + q * queries->size, queries->size);
}

static void clear(const Queries *queries, Partial partial) {
    for (long q = 0; q < queries->count; q++) partial.most[q] = -INFINITY;
    memset(partial.sum, 0, queries->count * (1 + queries->size) * sizeof(float));
}

// Writes what the queries of one key-value head have got, first the position, then the head of its group.
static void give(const Engine *e, long row, long head, long first, const Queries *queries, Partial got) {
    long n = queries->head_dim, group = e->sizes.heads / e->sizes.kv_heads;
    for (long q = 0; q < queries->count; q++) {
        float *out = column(e, MIXED, row * e->pass.length + first + q / group) + (head * group + q % group) * n;
        for (long d = 0; d < n; d++) out[d] = got.mixed[q * queries->size + d] / got.sum[q];
    }
}

// The chunk in which what a row may see begins, and how many there are.
static long first_chunk(const Engine *e, const Operation *op, long row) {
    long position = op->window < 0 ? 0 : max(e->pass.starts[row], e->pass.lengths[row] - op->window + 1);
    return position / CHUNK;
}

static long chunks_of(const Engine *e, const Operation *op, long row) {
    return (e->pass.lengths[row] + e->pass.length - 1) / CHUNK - first_chunk(e, op, row) + 1;
}

static long partial_size(const Engine *e) {
    long queries = e->pass.length * (e->sizes.heads / e->sizes.kv_heads);
    return queries * (2 + PADDED(e->sizes.head_dim));
}

// Few new positions: each task takes one chunk of one head, and writes those of the new positions that lie in it.
static void attend_by_chunks(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    long heads = e->sizes.kv_heads, most = 1, size = partial_size(e);
    for (long row = 0; row < pass->rows; row++) most = max(most, chunks_of(e, op, row));
    long total = pass->rows * heads * most;
    TASKS(self, task, total) {
        long chunk = task % most, head = task / most % heads, row = task / most / heads;
        if (chunk >= chunks_of(e, op, row)) continue;
        float *scratch = (float *)self->scratch, *partial = e->partials + task * size;
        long base = (first_chunk(e, op, row) + chunk) * CHUNK, length = pass->lengths[row];
        Store from = store_of(e, op, row, head);
        for (long p = max(base, length); p < min(base + CHUNK, length + pass->length); p++)
            remember(e, op, row, head, p - length, scratch);
        Queries queries = queries_of(e, op, row, head, 0, pass->length, false, &scratch);
        attend_chunk(&queries, &from, base, scratch, partial_at(partial, &queries));
        if (most == 1) {
            Partial got = partial_at(scratch, &queries);
            clear(&queries, got);
            fold_all(&queries, got, partial_at(partial, &queries));
            give(e, row, head, 0, &queries, got);
        }
    }
    barrier(self, total);
    if (most == 1) return;
    total = pass->rows * heads;
    TASKS(self, task, total) {
        long head = task % heads, row = task / heads;
        long group = e->sizes.heads / heads;
        Queries queries = {.count = pass->length * group, .head_dim = e->sizes.head_dim, .size = PADDED(e->sizes.head_dim)};
        Partial got = partial_at((float *)self->scratch, &queries);
        clear(&queries, got);
        for (long chunk = 0; chunk < chunks_of(e, op, row); chunk++)
            fold_all(&queries, got, partial_at(e->partials + (task * most + chunk) * size, &queries));
        give(e, row, head, 0, &queries, got);
    }
    barrier(self, total);
}

// Many new positions: all are written first, then each task takes a strip of them for one head.
static void attend_by_queries(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    long heads = e->sizes.kv_heads, n = e->sizes.head_dim, strips = (pass->length + STRIP - 1) / STRIP;
    long columns = pass->rows * pass->length, total = pass->rows * heads * strips;
    TASKS(self, c, columns) {
        long row = c / pass->length, i = c % pass->length;
        for (long head = 0; head < heads; head++) remember(e, op, row, head, i, (float *)self->scratch);
        for (long head = 0; head < e->sizes.heads; head++) {
            float *x = column(e, QUERY, c) + head * n;
            prepare_head(e, op, &op->norm, x, pass->lengths[row] + i, x);
        }
    }
    barrier(self, columns);
    TASKS(self, task, total) {
        // The last strips see most: they come first, so that no thread is left alone with one.
        long strip = strips - 1 - task / (pass->rows * heads), head = task % heads, row = task / heads % pass->rows;
        float *scratch = (float *)self->scratch;
        long first = strip * STRIP, count = min(STRIP, pass->length - first);
        Queries queries = queries_of(e, op, row, head, first, count, true, &scratch);
        Partial got = partial_at(scratch, &queries);
        Partial new = partial_at(scratch + queries.count * (2 + queries.size), &queries);
        scratch += 2 * queries.count * (2 + queries.size);
        Store from = store_of(e, op, row, head);
        long start = queries.from[0], end = 0;
        for (long q = 0; q < queries.count; q++) end = max(end, queries.to[q]);
        clear(&queries, got);
        for (long base = start / CHUNK * CHUNK; base < end; base += CHUNK) {
            attend_chunk(&queries, &from, base, scratch, new);
            fold_all(&queries, got, new);
        }
        give(e, row, head, first, &queries, got);
    }
    barrier(self, total);
}
