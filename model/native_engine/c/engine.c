// A forward pass of a transformer in one call: every thread runs the whole program, with a barrier after each phase.
#include "attend.h"
#include "facts.h"
#include "project.h"
#include "quantise.h"
#include "read.h"

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

static long widest(const Engine *e) {  // numbers of a column that is multiplied
    long most = e->sizes.hidden;
    for (long i = 0; i < e->count; i++)
        for (long p = 0; p < e->operations[i].parts; p++) most = max(most, e->operations[i].matrices[p].columns);
    return PADDED(most);
}

static size_t scratch_size(const Engine *e) {  // bytes of a thread's own memory: what its greediest task takes
    size_t size = PADDED(e->sizes.head_dim), queries = max(STRIP, SPLIT) * (e->sizes.heads / e->sizes.kv_heads);
    size_t multiplying = (FEW + 1) * e->widths[READY] + PANEL_ROWS * widest(e);
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
    e->tiled = tiles_allowed();
    long query = sizes->heads * sizes->head_dim, key = sizes->kv_heads * sizes->head_dim;
    long widths[BUFFERS] = {[HIDDEN] = sizes->hidden, [ADDED] = sizes->hidden,
                            [QUERY] = query, [KEY] = key, [VALUE] = key, [MIXED] = query,
                            [GATE] = sizes->intermediate, [UP] = sizes->intermediate};
    widths[READY] = max(sizes->hidden, FIXED_BYTES(widest(e)) / sizeof(float));
    for (int b = 0; b < BUFFERS; b++) e->widths[b] = PADDED(widths[b]);
    return e;
}

static bool make_team(Engine *e, long threads) {
    if (e->team && e->team->asked == threads && e->team->owner == getpid()) return true;
    end_team(e->team);
    e->team = new_team(threads, scratch_size(e));
    return e->team != NULL;
}

// Reads memory, whole tasks of it, as fast as the threads can: what a pass that does nothing else would take.
int tokenglass_read(Engine *e, const void *memory, int64_t bytes, int64_t threads) {
    if (!make_team(e, threads)) return NO_MEMORY;
    Reading reading = {memory, bytes, 0};
    run_team(e->team, read_memory, &reading);
    return DONE;
}

// One forward pass: what it writes is in `pass`. Not to be called from two threads at once.
int tokenglass_run(Engine *e, const Pass *pass, int64_t threads) {
    for (long i = 0; i < pass->rows * pass->length; i++)
        if (pass->ids[i] < 0 || pass->ids[i] >= e->sizes.vocab) return NO_SUCH_TOKEN;
    e->pass = *pass;
    if (!make_room(e, pass->rows * pass->length) || !make_room_for_partials(e)) return NO_MEMORY;
    if (!make_team(e, threads)) return NO_MEMORY;
    run_team(e->team, run_program, e);
    return DONE;
}
