// A forward pass of a transformer in one call: every thread runs the whole program, with a barrier after each phase.
#include "program.h"
#include "vectors.h"
#include "threads.h"
#include "dots.h"
#include "attention.h"

#define TASK_ROWS 16        // rows of a matrix in a task: whole vectors, so that tasks share none
#define PANEL_ROWS 48       // the same where columns are many: rows are widened into a panel, and read many times
#define FEW 4               // columns that every thread normalises for itself, to be spared a barrier
#define SPLIT 8             // new positions up to which the cache is dealt out by chunks, and beyond by queries
#define BAND 16             // new positions in a task that is dealt out by queries

typedef struct {
    Operation *operations;
    long count;
    Sizes sizes;
    long widths[BUFFERS];
    float *buffers[BUFFERS];
    long capacity;  // columns there is room for
    float *partials;
    size_t partials_size;
    Team *team;
    Pass pass;
} Engine;

enum { DONE, NO_MEMORY, NO_SUCH_TOKEN };

static float *column(const Engine *e, long buffer, long c) { return e->buffers[buffer] + c * e->widths[buffer]; }

static long min(long a, long b) { return a < b ? a : b; }
static long max(long a, long b) { return a > b ? a : b; }

APART void normalise(const Norm *norm, const float *x, float *out, bool add) {
    vec sum = splat(0), squares = splat(0);
    long n = norm->size, whole = n / LANES * LANES;
    float mean = 0;
    if (norm->kind == NORM_LAYER) {
        for (long i = 0; i < whole; i += LANES) sum += load(x + i);
        sum += load_some(x + whole, n - whole);
        mean = lane_sum(sum) / n;
    }
    for (long i = 0; i < whole; i += LANES) {
        vec centred = load(x + i) - mean;
        squares += centred * centred;
    }
    float rest = 0;
    for (long i = whole; i < n; i++) rest += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf((lane_sum(squares) + rest) / n + (float)norm->eps);
    for (long i = 0; i < n; i += LANES) {
        long some = min(LANES, n - i);
        vec value = (load_some(x + i, some) - mean) * scale * load_some(norm->weight + i, some);
        if (norm->bias) value += load_some(norm->bias + i, some);
        if (add) value += load_some(out + i, some);
        store_some(out + i, value, some);
    }
}

INLINE vec activated(long activation, vec x) {
    switch (activation) {
        case SILU: return x / (1.0f + exp_of(-x));
        case GELU_TANH: return 0.5f * x * (1.0f + tanh_of(0.797884561f * (x + 0.044715f * x * x * x)));
        case RELU: return pick(x > 0.0f, x, splat(0));
        case GELU: UNROLL for (int i = 0; i < LANES; i++) x[i] *= 0.5f * (1 + erff(x[i] * 0.707106781f)); return x;
        default: return x;
    }
}

// x = the activation of x, times `other` where there is one. `count` is rounded up to vectors: buffers are padded.
APART void activate(long activation, float *x, const float *other, long count) {
    for (long i = 0; i < count; i += LANES) {
        vec value = activated(activation, load(x + i));
        store(x + i, other ? value * load(other + i) : value);
    }
}

APART void cap_logits(float *x, long count, float cap) {
    for (long i = 0; i < count; i += LANES) {
        long some = min(LANES, count - i);
        store_some(x + i, cap * tanh_of(load_some(x + i, some) / cap), some);
    }
}

static void embed(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    const Matrix *m = &op->matrices[0], *learned = &op->matrices[1];
    long n = m->columns, size = PADDED(n);
    float *scratch = (float *)self->scratch, *row = scratch + 2 * LANES * size / GROUP;
    long columns = pass->rows * pass->length;
    TASKS(self, c, columns) {
        float *out = column(e, HIDDEN, c);
        Rows rows = rows_of(m, pass->ids[c], 1, scratch);
        expand(m, &rows, 0, row);
        float scale = m->kind == INT8 ? ((const float *)m->scales)[pass->ids[c]] : 1;
        for (long i = 0; i < n; i++) out[i] = row[i] * scale;
        if (op->parts > 1) {
            rows = rows_of(learned, pass->lengths[c / pass->length] + c % pass->length, 1, scratch);
            expand(learned, &rows, 0, row);
            for (long i = 0; i < n; i++) out[i] += row[i];
        }
        for (long i = 0; i < n; i++) out[i] *= (float)op->scale;
    }
    barrier(self, columns);
}

static void normalise_columns(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.rows * e->pass.length;
    TASKS(self, c, columns) normalise(&op->norm, column(e, op->source, c), column(e, op->target, c), op->add);
    barrier(self, columns);
}

static void multiply_columns(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    bool head = op->kind == HEAD, last = head && pass->last;
    long columns = last ? pass->rows : pass->rows * pass->length;
    long stride = e->widths[op->source] * (last ? pass->length : 1);
    const float *x = column(e, op->source, last ? pass->length - 1 : 0);
    float *scratch = (float *)self->scratch;
    if (op->norm.kind != NORM_NONE) {
        long width = e->widths[NORMED], n = op->norm.size;
        if (columns <= FEW) {
            for (long c = 0; c < columns; c++) {
                normalise(&op->norm, x + c * stride, scratch + c * width, false);
                memset(scratch + c * width + n, 0, (width - n) * sizeof *scratch);
            }
            x = scratch;
            scratch += FEW * width;
        } else {
            TASKS(self, c, columns) normalise(&op->norm, x + c * stride, column(e, NORMED, c), false);
            barrier(self, columns);
            x = column(e, NORMED, 0);
        }
        stride = width;
    }
    long share = columns > COLUMNS ? PANEL_ROWS : TASK_ROWS, parts = op->gated ? 1 : op->parts, total = 0;
    for (long p = 0; p < parts; p++) total += (op->matrices[p].rows + share - 1) / share;
    TASKS(self, task, total) {
        long p = 0;
        for (long of; task >= (of = (op->matrices[p].rows + share - 1) / share); p++) task -= of;
        const Matrix *m = &op->matrices[p];
        long first = task * share, count = min(share, m->rows - first);
        if (head) {
            multiply(m, first, count, x, stride, columns, pass->logits + first, m->rows, false, scratch);
            if (op->softcap)
                for (long c = 0; c < columns; c++)
                    cap_logits(pass->logits + c * m->rows + first, count, op->softcap);
            continue;
        }
        long width = e->widths[op->target + p];
        float *out = column(e, op->target + p, 0) + first;
        multiply(m, first, count, x, stride, columns, out, width, op->add, scratch);
        if (op->gated) {
            float *up = column(e, op->target + 1, 0) + first;
            multiply(m + 1, first, count, x, stride, columns, up, width, false, scratch);
            for (long c = 0; c < columns; c++) activate(op->activation, out + c * width, up + c * width, count);
        } else if (op->activation != IDENTITY)
            for (long c = 0; c < columns; c++) activate(op->activation, out + c * width, NULL, count);
    }
    barrier(self, total);
}

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

// Many new positions: all are written first, then each task takes a band of them for one head.
static void attend_by_queries(Engine *e, Member *self, const Operation *op) {
    const Pass *pass = &e->pass;
    long heads = e->sizes.kv_heads, n = e->sizes.head_dim, bands = (pass->length + BAND - 1) / BAND;
    long columns = pass->rows * pass->length, total = pass->rows * heads * bands;
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
        // The last bands see most: they come first, so that no thread is left alone with one.
        long band = bands - 1 - task / (pass->rows * heads), head = task % heads, row = task / heads % pass->rows;
        float *scratch = (float *)self->scratch;
        long first = band * BAND, count = min(BAND, pass->length - first);
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

static void tap(Engine *e, Member *self, const Operation *op) {
    long columns = e->pass.rows * e->pass.length, n = e->sizes.hidden;
    if (!e->pass.hidden) return;
    TASKS(self, c, columns) memcpy(e->pass.hidden + (op->layer * columns + c) * n, column(e, HIDDEN, c), n * sizeof(float));
    barrier(self, columns);
}

static void run_program(Member *self, void *argument) {
    Engine *e = argument;
    for (const Operation *op = e->operations; op < e->operations + e->count; op++) switch (op->kind) {
            case EMBED: embed(e, self, op); break;
            case NORMALISE: normalise_columns(e, self, op); break;
            case MULTIPLY: multiply_columns(e, self, op); break;
            case HEAD: if (e->pass.logits) multiply_columns(e, self, op); break;
            case ATTEND:
                if (e->pass.length <= SPLIT) attend_by_chunks(e, self, op);
                else attend_by_queries(e, self, op);
                break;
            case TAP: tap(e, self, op); break;
        }
}

static float *zeros(size_t count) {
    float *memory = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    if (memory) memset(memory, 0, count * sizeof(float));
    return memory;
}

static bool make_room(Engine *e, long columns) {
    if (columns <= e->capacity) return true;
    for (int b = 0; b < BUFFERS; b++) {
        free(e->buffers[b]);
        e->buffers[b] = NULL;
    }
    e->capacity = 0;
    for (int b = 0; b < BUFFERS; b++)
        if (!(e->buffers[b] = zeros(columns * e->widths[b]))) return false;
    e->capacity = columns;
    return true;
}

static bool make_room_for_partials(Engine *e) {
    const Pass *pass = &e->pass;
    if (pass->length > SPLIT) return true;
    long most = 1;
    for (long i = 0; i < e->count; i++)
        if (e->operations[i].kind == ATTEND)
            for (long row = 0; row < pass->rows; row++) most = max(most, chunks_of(e, &e->operations[i], row));
    size_t needed = (size_t)pass->rows * e->sizes.kv_heads * most * partial_size(e);
    if (needed <= e->partials_size) return true;
    free(e->partials);
    e->partials = zeros(2 * needed);
    e->partials_size = e->partials ? 2 * needed : 0;
    return e->partials != NULL;
}

static size_t scratch_size(const Engine *e) {  // bytes of a thread's own memory: what its greediest task takes
    size_t widest = PADDED(e->sizes.hidden);
    for (long i = 0; i < e->count; i++)
        for (long p = 0; p < e->operations[i].parts; p++)
            widest = max(widest, PADDED(e->operations[i].matrices[p].columns));
    size_t multiplying = FEW * PADDED(e->sizes.hidden) + (PANEL_ROWS + LANES) * widest;
    size_t queries = max(BAND, SPLIT) * (e->sizes.heads / e->sizes.kv_heads), size = PADDED(e->sizes.head_dim);
    size_t attending = queries * (size + 4) + 2 * queries * (2 + size) + queries * CHUNK;
    return (max(multiplying, attending) + 64) * sizeof(float);
}

void tokenglass_free(Engine *e) {
    if (!e) return;
    end_team(e->team);
    for (int b = 0; b < BUFFERS; b++) free(e->buffers[b]);
    free(e->partials);
    free(e->operations);
    free(e);
}

// What the operations point to must outlive the engine. Null: no memory.
Engine *tokenglass_new(const Operation *operations, int64_t count, const Sizes *sizes) {
    Engine *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->operations = malloc(count * sizeof *operations);
    if (!e->operations) {
        free(e);
        return NULL;
    }
    memcpy(e->operations, operations, count * sizeof *operations);
    e->count = count;
    e->sizes = *sizes;
    long query = sizes->heads * sizes->head_dim, key = sizes->kv_heads * sizes->head_dim;
    long widths[BUFFERS] = {[HIDDEN] = sizes->hidden, [NORMED] = sizes->hidden, [ADDED] = sizes->hidden,
                            [QUERY] = query, [KEY] = key, [VALUE] = key, [MIXED] = query,
                            [GATE] = sizes->intermediate, [UP] = sizes->intermediate};
    for (int b = 0; b < BUFFERS; b++) e->widths[b] = PADDED(widths[b]);
    return e;
}

// One forward pass: what it writes is in `pass`. Not to be called from two threads at once.
int tokenglass_run(Engine *e, const Pass *pass, int64_t threads) {
    for (long i = 0; i < pass->rows * pass->length; i++)
        if (pass->ids[i] < 0 || pass->ids[i] >= e->sizes.vocab) return NO_SUCH_TOKEN;
    e->pass = *pass;
    if (!make_room(e, pass->rows * pass->length) || !make_room_for_partials(e)) return NO_MEMORY;
    if (!e->team || e->team->asked != threads || e->team->owner != getpid()) {
        end_team(e->team);
        e->team = new_team(threads, scratch_size(e));
        if (!e->team) return NO_MEMORY;
    }
    run_team(e->team, run_program, e);
    return DONE;
}
