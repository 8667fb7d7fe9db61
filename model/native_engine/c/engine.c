// A forward pass of a transformer in one call: every thread runs the whole program, with a barrier after each phase.
//
// A pass has columns: the new positions of all rows, one row behind the other. Each buffer has a vector for each column:
//
//   buffer  width                written by                      read by
//   HIDDEN  hidden               EMBED; MULTIPLY or NORMALISE    MULTIPLY of every layer; NORMALISE; TAP; HEAD
//           (residual stream)    that adds to it
//   QUERY   heads * head_dim     MULTIPLY; NORMALISE (a norm     ATTEND, which normalises and rotates it in place
//                                over all heads)                 where a row has many new positions; CONVOLVE
//   KEY     kv_heads * head_dim  the same                        ATTEND, which writes it into the cache; CONVOLVE
//   VALUE   kv_heads * head_dim  MULTIPLY                        the same
//   MIXED   heads * head_dim     ATTEND: weighted sums of values MULTIPLY by the mixer's output matrix
//                                CONVOLVE
//                                RECUR
//   OPENING heads * head_dim     MULTIPLY, attention's gate      OPEN, which multiplies MIXED by its sigmoid
//           (QUERY to MIXED are as wide as HIDDEN where the model has convolutions, and for RECUR as wide as queries,
//           keys and values side by side: QUERY has these, KEY its gate, ROUTED and SHARED strengths and decays)
//   GATE    intermediate         MULTIPLY: the activation,       MULTIPLY by the MLP's last matrix
//                                times UP where it is gated
//   UP      intermediate         MULTIPLY, the task that gates   the same task
//   ADDED   hidden               MULTIPLY, where a norm comes    NORMALISE, which adds it to HIDDEN
//                                before the sum
//   TOKEN_  what all layers take in  MULTIPLY by a projection;   TIMES, a layer's stretch of it
//   ROWS    of each token        NORMALISE; EMBED, which adds
//                                the table's
//   ROUTED  experts              MULTIPLY by the router          CHOOSE
//   SHARED  1                    MULTIPLY, the shared expert's   CHOOSE
//   READY   hidden, or the       MULTIPLY and HEAD, where there  the products of the same operation
//           widest column in     are many columns: normalised,
//           fixed point          in fixed point, or both
//
// Of mixtures of experts there are buffers with a vector for each pair of a column and one of its experts, by expert:
//
//   INNER   the widest expert    MULTIPLY_PAIRS: as GATE         MULTIPLY_PAIRS by the experts' last matrices
//   INNER_UP the same            as UP                           the same task
//   OUTER   hidden               MULTIPLY_PAIRS                  COMBINE, which adds their sum to HIDDEN, or to ADDED where a
//                                                                dense feed-forward has written that
//
// Before the threads begin (tokenglass_run, by the calling thread): make_room for the columns, make_room_for_rows,
// deal_columns (their positions; which have logits), deal_attention for the layers that keep the same (the tasks of its
// two phases), make_room_for_partials, make_team.
//
// Then each thread runs every operation. A phase deals out its tasks and ends with a barrier (|):
//
//   EMBED      embed             columns |
//   NORMALISE  normalise_columns columns |
//   MULTIPLY   multiply_columns  make ready: columns | product: rows of matrices |
//   HEAD       the same          The first phase is left out where columns are UNSHARED_COLUMNS or fewer: each thread
//                                makes them ready in its own scratch memory. HEAD writes logits, not a buffer.
//   ATTEND     attend            rows with few new positions: attend to chunks | join chunks |
//                                rows with many: write positions | attend to strips |
//                                One barrier serves both kinds. The second phase is left out where all rows have few
//                                new positions and one chunk.
//   CHOOSE     choose            one task |
//   MULTIPLY_PAIRS multiply_pairs  rows of the experts that are taken, with up to PAIRS_PER_BATCH of their pairs |
//   COMBINE    combine           columns |
//   CONVOLVE   convolve          rows times heads |
//   RECUR      recur             rows times value heads, and one more for each row |
//   OPEN       open_gate         columns |
//   TIMES      times             columns |
//   TAP        tap               columns, to pass->hidden |  Left out where nobody asks for hidden states.
//
// Before a product comes a phase that sums the squares of what it multiplies (parts |), where its matrices have room.
#include "attend.h"
#include "convolve.h"
#include "experts.h"
#include "facts.h"
#include "lost_pages.h"
#include "project.h"
#include "quantise.h"
#include "read.h"
#include "recur.h"

static void run_program(Member *self, void *argument) {
    Engine *e = argument;
    for (const Operation *op = e->operations; op < e->operations + e->count; op++) switch (op->kind) {
            case EMBED: embed(e, self, op); break;
            case NORMALISE: normalise_columns(e, self, op); break;
            case MULTIPLY: multiply_columns(e, self, op); break;
            case HEAD: if (e->output_count) multiply_columns(e, self, op); break;
            case ATTEND: attend(e, self, op); break;
            case TAP: tap(e, self, op); break;
            case CHOOSE: choose(e, self, op); break;
            case MULTIPLY_PAIRS: multiply_pairs(e, self, op); break;
            case COMBINE: combine(e, self, op); break;
            case CONVOLVE: convolve(e, self, op); break;
            case RECUR: recur(e, self, op); break;
            case OPEN: open_gate(e, self, op); break;
            case TIMES: times(e, self, op); break;
        }
}

static float *zeros(size_t count) {
    float *memory = aligned_alloc(64, (count * sizeof(float) + 64) / 64 * 64);  // of none, something that is not null
    if (memory) memset(memory, 0, count * sizeof(float));
    return memory;
}

// Room for `count` numbers in place of what is there, to be filled anew.
static bool renew(long **numbers, long count) {
    free(*numbers);
    *numbers = malloc(count * sizeof **numbers);
    return *numbers != NULL;
}

static void free_mixture(Mixture *mixture) {
    free(mixture->experts);
    free(mixture->weights);
    free(mixture->places);
    free(mixture->columns);
    free(mixture->batch);
    free(mixture->batches);
    free(mixture->ends);
    free(mixture->taken);
    *mixture = (Mixture){0};
}

static bool make_room_for_pairs(Engine *e, long columns) {
    Mixture *mixture = &e->mixture;
    long pairs = columns * e->sizes.slots, experts = e->sizes.experts + 1, layers = 0;
    for (long i = 0; i < e->count; i++) layers += e->operations[i].kind == CHOOSE;
    free_mixture(mixture);
    if (!pairs) return true;
    mixture->weights = malloc(pairs * sizeof *mixture->weights);
    mixture->batch = malloc((pairs / PAIRS_PER_BATCH + experts) * sizeof *mixture->batch);
    mixture->batches = malloc(layers * sizeof *mixture->batches);
    mixture->taken = malloc(experts * sizeof *mixture->taken);
    return renew(&mixture->experts, pairs) && renew(&mixture->places, pairs) && renew(&mixture->columns, pairs) &&
           renew(&mixture->ends, experts + 1) && mixture->weights && mixture->batch && mixture->batches && mixture->taken;
}

static bool make_room(Engine *e, long columns) {
    if (columns <= e->capacity) return true;
    for (int b = 0; b < BUFFERS; b++) {
        free(e->buffers[b]);
        e->buffers[b] = NULL;
    }
    e->capacity = 0;
    for (int b = 0; b < BUFFERS; b++)
        if (!(e->buffers[b] = zeros(columns * e->widths[b] * (b < INNER ? 1 : e->sizes.slots)))) return false;
    if (!renew(&e->positions, columns) || !renew(&e->outputs, columns)) return false;
    if (!make_room_for_pairs(e, columns)) return false;
    e->capacity = columns;
    return true;
}

static bool make_room_for_rows(Engine *e, long rows) {
    if (rows <= e->row_capacity) return true;
    e->row_capacity = 0;
    if (!renew(&e->dealt, 3 * e->states * (rows + 1))) return false;
    for (long s = 0; s < e->states; s++) {
        long *numbers = e->dealt + 3 * s * (rows + 1);
        e->deals[s] = (Deal){numbers, numbers + rows + 1, numbers + 2 * (rows + 1)};
    }
    e->row_capacity = rows;
    return true;
}

static bool make_room_for_partials(Engine *e) {
    long rows = e->pass.count;
    size_t needed = 0;
    for (long s = 0; s < e->states; s++)
        if (e->readers[s]) needed = max(needed, e->deals[s].partial[rows]);
    if (needed <= e->partials_size) return true;
    free(e->partials);
    e->partials = zeros(2 * needed);
    e->partials_size = e->partials ? 2 * needed : 0;
    return e->partials != NULL;
}

static bool find_states(Engine *e) {
    for (long i = 0; i < e->count; i++) e->states = max(e->states, e->operations[i].state + 1);
    e->deals = calloc(e->states, sizeof *e->deals);
    e->readers = calloc(e->states, sizeof *e->readers);
    if (!e->deals || !e->readers) return false;
    for (long i = e->count - 1; i >= 0; i--)
        if (e->operations[i].kind == ATTEND) e->readers[e->operations[i].state] = e->operations + i;
    return true;
}

static long widest_mixer(const Engine *e) {  // of those that are not attention
    long most = 0;
    for (long i = 0; i < e->count; i++) {
        const Operation *op = e->operations + i;
        if (op->kind == CONVOLVE) most = max(most, e->sizes.hidden);
        if (op->kind == RECUR) most = max(most, delta_sizes(op).channels);
    }
    return most;
}

static long most_value_heads(const Engine *e) {
    long most = 0;
    for (long i = 0; i < e->count; i++)
        if (e->operations[i].kind == RECUR) most = max(most, e->operations[i].value_heads);
    return most;
}

static long widest(const Engine *e) {  // numbers of a column that is multiplied
    long most = e->sizes.hidden;
    for (long i = 0; i < e->count; i++)
        for (long p = 0; e->operations[i].matrices && p < e->operations[i].parts * max(1, e->operations[i].experts); p++)
            most = max(most, e->operations[i].matrices[p].columns);
    return PADDED(most);
}

static size_t scratch_size(const Engine *e) {  // bytes of a thread's own memory: what its greediest task takes
    size_t positions = max(POSITIONS_PER_STRIP, SHORT_ROW_POSITIONS), attending = 0;
    size_t columns = e->sizes.slots ? PAIRS_PER_BATCH : UNSHARED_COLUMNS;
    size_t multiplying = (columns + 1) * e->widths[READY] + ROWS_PER_TASK_MANY_COLUMNS * widest(e);
    for (const Operation *op = e->operations; op < e->operations + e->count; op++) {
        if (op->kind != ATTEND) continue;
        size_t queries = positions * group_of(e, op), size = PADDED(op->head_dim);
        attending = max(attending, queries * (size + 4) + 2 * queries * (2 + size) + queries * CHUNK);
    }
    return (max(max(multiplying, attending), 4 * widest_mixer(e)) + 64) * sizeof(float);
}

void tokenglass_free(Engine *e) {
    if (!e) return;
    end_team(e->team);
    for (int b = 0; b < BUFFERS; b++) free(e->buffers[b]);
    free_mixture(&e->mixture);
    free(e->partials);
    free(e->positions);
    free(e->outputs);
    free(e->dealt);
    free(e->deals);
    free(e->readers);
    free(e->operations);
    free(e);
}

// What the operations point to must outlive the engine. Null: no memory.
Engine *tokenglass_new(const Operation *operations, int64_t count, const Sizes *sizes) {
    Engine *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->operations = malloc(count * sizeof *operations);
    if (e->operations) memcpy(e->operations, operations, count * sizeof *operations), e->count = count;
    if (!e->operations || !find_states(e)) {
        tokenglass_free(e);
        return NULL;
    }
    e->sizes = *sizes;
    e->tiled = tiles_allowed();
    long channels = widest_mixer(e), rates = most_value_heads(e);
    long query = max(sizes->query, channels), key = max(sizes->key, channels);
    long widths[BUFFERS] = {[HIDDEN] = sizes->hidden, [ADDED] = sizes->hidden,
                            [QUERY] = query, [KEY] = key, [VALUE] = key, [OPENING] = query, [MIXED] = query,
                            [GATE] = sizes->intermediate, [UP] = sizes->intermediate, [TOKEN_ROWS] = sizes->token_rows,
                            [ROUTED] = max(sizes->experts, rates), [SHARED] = max(1, rates), [INNER] = sizes->inner,
                            [INNER_UP] = sizes->inner, [OUTER] = sizes->hidden};
    long fixed = max(FIXED_BYTES(widest(e)), WORD_BYTES(widest(e)));
    widths[READY] = max(sizes->hidden, fixed / (long)sizeof(float));
    for (int b = 0; b < BUFFERS; b++) e->widths[b] = PADDED(widths[b]);
    return e;
}

static bool make_team(Engine *e, long threads) {
    if (e->team && e->team->requested_size == threads && e->team->owner == getpid()) return true;
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

// Several rows of logits at once, each as `tokenglass_measure` does it.
int tokenglass_measure_each(Engine *e, const Measuring *all, int64_t threads) {
    if (!make_team(e, threads)) return NO_MEMORY;
    run_team(e->team, measure_each, (void *)all);
    return DONE;
}

// A token of each of several rows of logits, each as `tokenglass_draw` does it.
int tokenglass_draw_each(Engine *e, const Drawing *all, int64_t threads) {
    if (!make_team(e, threads)) return NO_MEMORY;
    run_team(e->team, draw_each, (void *)all);
    return DONE;
}

// The sums of several rows of logits, and the rank of one token of each.
int tokenglass_measure_tokens(Engine *e, const TokenMeasuring *all, int64_t threads) {
    if (!make_team(e, threads)) return NO_MEMORY;
    run_team(e->team, measure_tokens, (void *)all);
    return DONE;
}

// One forward pass: what it writes is in `pass`. Not to be called from two threads at once.
int tokenglass_run(Engine *e, const Pass *pass, int64_t threads) {
    for (long i = 0; i < pass->columns; i++)
        if (pass->ids[i] < 0 || pass->ids[i] >= e->sizes.vocab) return NO_SUCH_TOKEN;
    e->pass = *pass;
    if (!make_room(e, pass->columns) || !make_room_for_rows(e, pass->count)) return NO_MEMORY;
    deal_columns(e);
    for (long s = 0; s < e->states; s++)
        if (e->readers[s]) deal_attention(e, &e->deals[s], e->readers[s]);
    if (!make_room_for_partials(e) || !make_team(e, threads)) return NO_MEMORY;
    long lost_before = begin_reading();
    run_team(e->team, run_program, e);
    e->lost |= end_reading(lost_before);
    return e->lost ? WEIGHTS_LOST : DONE;
}
