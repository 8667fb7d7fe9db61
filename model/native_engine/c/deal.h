// How a pass is dealt out, before its threads begin: which columns are whose, and the tasks of attention row by row.
#pragma once
#include "attention.h"
#include "dots.h"
#include "pass.h"

#define SHORT_ROW_POSITIONS 8   // new positions of a row up to which its cache is dealt out by chunks, and beyond by queries
#define POSITIONS_PER_STRIP 16  // new positions in a task that is dealt out by queries

static bool is_long(const PassRow *row) { return row->count > SHORT_ROW_POSITIONS; }

static long strips_of(const PassRow *row) { return (row->count + POSITIONS_PER_STRIP - 1) / POSITIONS_PER_STRIP; }

// The chunk in which what a row may see begins, and how many there are.
static long first_chunk(const Operation *op, const PassRow *row) {
    return op->window < 0 ? 0 : max(row->pieces[op->state]->start, row->length - op->window + 1) / CHUNK;
}

static long chunks_of(const Operation *op, const PassRow *row) {
    return (row->length + row->count - 1) / CHUNK - first_chunk(op, row) + 1;
}

static long group_of(const Engine *e, const Operation *op) { return e->sizes.heads / op->kv_heads; }

// Numbers in what one chunk gives the queries of one key-value head.
static long partial_size(const Engine *e, const Operation *op, const PassRow *row) {
    return row->count * group_of(e, op) * (2 + PADDED(op->head_dim));
}

// The row whose task this is: the last that begins at it or before.
static long row_of_task(const long *before, long rows, long task) {
    long low = 0, high = rows;
    while (high - low > 1) {
        long middle = (low + high) / 2;
        if (before[middle] <= task) low = middle;
        else high = middle;
    }
    return low;
}

static void deal_columns(Engine *e) {
    e->output_count = 0;
    for (long r = 0; r < e->pass.count; r++) {
        const PassRow *row = &e->pass.rows[r];
        for (long i = 0; i < row->count; i++) {
            e->positions[row->first + i] = row->length + i;
            if (i >= row->count - row->outputs) e->outputs[e->output_count++] = row->first + i;
        }
    }
}

static void deal_attention(const Engine *e, const Deal *deal, const Operation *op) {
    long heads = op->kv_heads, first = 0, second = 0, partial = 0;
    for (long r = 0; r <= e->pass.count; r++) {
        deal->first[r] = first;
        deal->second[r] = second;
        deal->partial[r] = partial;
        const PassRow *row = &e->pass.rows[r];
        if (r == e->pass.count || !row->count) continue;
        if (is_long(row)) {
            first += row->count;
            second += strips_of(row) * heads;
        } else {
            long chunks = chunks_of(op, row);
            first += chunks * heads;
            second += chunks > 1 ? heads : 0;
            partial += chunks * heads * partial_size(e, op, row);
        }
    }
}
