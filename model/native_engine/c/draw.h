// The token that a chain of temperature, top-k, top-p and min-p draws, in one call, and what is recorded of it. Every other
// chain is sampler.py's, and so is what this one leaves undecided; its numbers are the same.
#pragma once
#include "measure.h"

#define MAX_PARTS 4
#define MAX_SHOWN 32
#define HEAD_GROWTH 8    // times as many tokens are looked at where those found do not decide
#define MOST_LOWERED 32  // that masks lower the peak: beyond it the chain's rounding shows
#define UNDECIDED -2     // a nucleus that bounds of the mass do not decide

enum { TEMPERATURE, TOP_K, TOP_P, MIN_P };

typedef struct {
    int64_t kind;
    double value;  // of min-p, its logarithm
} ChainPart;

typedef struct {
    int64_t wanted, shown, greedy, count;  // tokens to measure and to record; parts, a temperature first of all
    ChainPart parts[MAX_PARTS];
} Chain;

typedef struct {
    int64_t id, cut;  // the part that removed it, or -1; 0 of a greedy chain; -2, -3, ... of the first, the second, ... mask
    double logprob, prob;
} TokenRecord;

typedef struct {
    double mass, weighted;  // of the raw distribution
    int64_t place, rank;    // of the token among those below (-1: undecided), and among all
    int64_t count;          // of those below
    TokenRecord tokens[MAX_SHOWN + 1];
} TokenDraw;

typedef struct {  // a distribution on its way through a chain
    const float *logits;
    long size;
    double peak, raw_mass, raw_head_mass;  // the latter below temperature 1 only
    long count;     // tokens of the head that are left: the first ones
    bool complete;  // whether nothing outside the head is left
    double *values, *weights;  // of the head: how far each lies below the peak, and e to that power,
    long weighed;              // which is known of the first ones
    double temperature;
    double mass;        // sum of the weights of all that are left; NAN: not summed yet
    double whole_mass, near_mass;  // of all tokens at the temperature, likewise, and within MASS_ERROR of that
    long kept[MAX_PARTS];      // tokens that each part left; -1: all
} Scores;

// Halves of halves, and eight sums of at most 128 (Higham 1993), as numpy adds.
static double pairwise_sum(const double *values, long count) {
    if (count > 128) {
        long half = count / 2 / 8 * 8;
        return pairwise_sum(values, half) + pairwise_sum(values + half, count - half);
    }
    double sum = 0;
    long i = 0;
    if (count >= 8) {
        double sums[8];
        memcpy(sums, values, sizeof sums);
        for (i = 8; i + 8 <= count; i += 8)
            for (int s = 0; s < 8; s++) sums[s] += values[i + s];
        sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    }
    for (; i < count; i++) sum += values[i];
    return sum;
}

static double weight_of(Scores *scores, long place) {
    for (; scores->weighed <= place; scores->weighed++) scores->weights[scores->weighed] = exp(scores->values[scores->weighed]);
    return scores->weights[place];
}

static double mass_of(Scores *scores) {
    if (!isnan(scores->mass)) return scores->mass;
    if (scores->complete) weight_of(scores, scores->count - 1);
    if (scores->complete) return scores->mass = pairwise_sum(scores->weights, scores->count);
    scores->whole_mass = tokenglass_mass_at(scores->logits, scores->size, scores->peak, scores->temperature);
    return scores->mass = scores->whole_mass;
}

// False where a token that is recorded would be left without a probability.
static bool apply_temperature(Scores *scores, double temperature, long shown) {
    long recorded = min(shown, scores->count);
    if (temperature < 1 && recorded && scores->values[recorded - 1] < LEAST_NORMAL_EXPONENT * temperature) return false;
    if (temperature == 1) return true;
    if (temperature < 1) scores->raw_head_mass = mass_of_tokens(scores->values, scores->count);
    for (long i = 0; i < scores->count; i++) scores->values[i] /= temperature;
    scores->temperature = temperature;
    scores->mass = scores->whole_mass;
    return true;
}

// How many tokens of the head hold p of `mass` together; -1 where all of them hold less.
static long nucleus_size(Scores *scores, double p, double mass) {
    double reach = 0;
    for (long i = 0; i < scores->count; i++)
        if ((reach += weight_of(scores, i) / mass) >= p) return i + 1;
    return -1;
}

// The same for a mass between bounds that are known within MASS_ERROR. Rounding keeps order, so a greater mass never has a
// smaller nucleus: it is that of both bounds, or UNDECIDED.
static long nucleus_between(Scores *scores, double p, double least, double most) {
    long count = nucleus_size(scores, p, least * (1 - MASS_ERROR));
    return count == nucleus_size(scores, p, most * (1 + MASS_ERROR)) ? count : UNDECIDED;
}

// From the mass of the head alone. At a temperature t below 1, a token outside it, whose x is below v, the head's last, has
// e**(x / t) = e**x e**(x (1 / t - 1)) < e**x e**(v (1 / t - 1)); and the sum of e**x over those is known.
static long nucleus_by_head(Scores *scores, double p) {
    if (scores->temperature >= 1) return UNDECIDED;
    double head = mass_of_tokens(scores->values, scores->count), last = scores->values[scores->count - 1];
    double others = scores->raw_mass * (1 + MASS_ERROR) - scores->raw_head_mass;
    return nucleus_between(scores, p, head, head + others * exp(last * (1 - scores->temperature)));
}

// The nucleus of all that are left: their mass is summed in float32 where the head does not decide, and in double only where
// that does not either.
static long find_nucleus(Scores *scores, double p) {
    if (!isnan(scores->mass) || scores->complete) return nucleus_size(scores, p, mass_of(scores));
    long count = nucleus_by_head(scores, p);
    if (count != UNDECIDED) return count;
    if (isnan(scores->near_mass))
        scores->near_mass = tokenglass_mass_near(scores->logits, scores->size, scores->peak, scores->temperature);
    count = nucleus_between(scores, p, scores->near_mass, scores->near_mass);
    return count != UNDECIDED ? count : nucleus_size(scores, p, mass_of(scores));
}

// How many tokens of the head a truncation leaves; -1 where an incomplete head does not decide it.
static long survivors(Scores *scores, const ChainPart *part) {
    const double value = part->value, *values = scores->values;
    const long size = scores->count;
    long count = 0;
    if (part->kind == TOP_K) {
        count = value;
        if (count > size) return scores->complete ? size : -1;
        while (count < size && values[count] == values[(long)value - 1]) count++;
        return count;
    }
    if (part->kind == MIN_P) {
        while (count < size && values[count] >= value) count++;
        return count < size || scores->complete || values[size - 1] <= value ? count : -1;
    }
    count = find_nucleus(scores, value);
    return count < 0 && scores->complete ? size : count;
}

// False where the head does not decide what the parts leave.
static bool apply_chain(Scores *scores, const Chain *chain) {
    const ChainPart *part = chain->parts, *end = part + chain->count;
    for (int p = 0; p < MAX_PARTS; p++) scores->kept[p] = -1;
    if (part < end && part->kind == TEMPERATURE && !apply_temperature(scores, (part++)->value, chain->shown)) return false;
    scores->weighed = 0;
    for (; part < end; part++) {
        long count = survivors(scores, part);
        if (count < 0) return false;
        if (scores->complete && count == scores->count) continue;
        scores->kept[part - chain->parts] = scores->count = count;
        scores->complete = true;
        scores->mass = NAN;
    }
    return true;
}

// The place in the head of the token whose stretch of the cumulative distribution holds `draw`; -1 where the head does not
// decide it, or where equal probabilities are to be put in the order of their ids.
static long draw_place(Scores *scores, double draw) {
    const double mass = mass_of(scores);
    const long count = scores->count;
    double reach = 0, before = NAN, prob = NAN;
    for (long i = 0; i < count; i++) {
        before = prob;
        reach += prob = weight_of(scores, i) / mass;
        if (reach <= draw) continue;
        bool is_sure = scores->complete || prob > exp(scores->values[count - 1]) / mass;
        bool is_tied = prob == before || (i + 1 < count && weight_of(scores, i + 1) / mass == prob);
        return is_sure && !is_tied ? i : -1;
    }
    return -1;
}

typedef struct {
    int64_t id, cut;
} Removed;

typedef struct {                   // what `tokenglass_draw` takes and writes
    const float *logits, *masked;  // (size,); the latter is minus infinity where a mask removed a token
    const Removed *removed;        // from the most probable down, ties by id; not those that the model made impossible
    int64_t removed_count;
    const Chain *chain;
    double draw;
    TokenDraw out;
} DrawRow;

static TokenRecord *add_record(DrawRow *row, const Measurement *raw, int64_t id, int64_t cut) {
    TokenRecord *token = &row->out.tokens[row->out.count++];
    *token = (TokenRecord){id, cut, row->logits[id] - (raw->peak + log(raw->mass)), 0};
    return token;
}

static void record_token(DrawRow *row, const Measurement *raw, Scores *scores, long place, int64_t id) {
    const Chain *chain = row->chain;
    const bool is_greedy = chain->greedy, is_possible = is_greedy ? place == 0 : place < scores->count;
    TokenRecord *token = add_record(row, raw, id, is_greedy && !is_possible ? 0 : -1);
    token->prob = !is_possible ? 0 : is_greedy ? 1 : weight_of(scores, place) / scores->mass;
    for (long p = chain->count - 1; p >= 0; p--)
        if (scores->kept[p] >= 0 && place >= scores->kept[p]) token->cut = p;
}

// Whether the model's own distribution has this removed token before that one.
static bool comes_before(const DrawRow *row, const Measurement *raw, const Removed *removed, int64_t id) {
    const double own = row->logits[removed->id] - raw->peak, other = row->logits[id] - raw->peak;
    return own > other || (own == other && removed->id < id);
}

// The most probable tokens by the model's own distribution, `left` of them by the masks, and with them the one at `place`.
static void record_tokens(DrawRow *row, const Measurement *raw, Scores *scores, const int64_t *ids, long left, long place) {
    TokenDraw *out = &row->out;
    const Removed *removed = row->removed, *end = removed + row->removed_count;
    *out = (TokenDraw){.mass = raw->mass, .weighted = raw->weighted, .place = -1, .rank = place + 1};
    for (const Removed *each = removed; each < end; each++) out->rank += comes_before(row, raw, each, ids[place]);
    for (long i = 0; out->count < row->chain->shown && (i < left || removed < end);) {
        if (removed < end && (i == left || comes_before(row, raw, removed, ids[i]))) {
            add_record(row, raw, removed->id, removed->cut);
            removed++;
            continue;
        }
        if (i == place) out->place = out->count;
        record_token(row, raw, scores, i, ids[i]);
        i++;
    }
    if (out->place >= 0) return;
    out->place = out->count;
    record_token(row, raw, scores, place, ids[place]);
}

// How far each token lies below the first of them, where that is not the model's own.
static void lower_peak(double *below, long count) {
    const double first = below[0];
    for (long i = 0; first && i < count; i++) below[i] -= first;
}

// Draws from what the masks left of a row's logits, of which `measured`, unless it is null, tells what `ids` and `below` are.
void tokenglass_draw(DrawRow *row, int64_t size, const Measurement *measured, const int64_t *ids, const double *below) {
    int64_t own_ids[2 * MAX_WANTED];
    double own_below[2 * MAX_WANTED], weights[MAX_WANTED];
    const Chain *chain = row->chain;
    const long room = min(MAX_WANTED, size);
    const Measurement raw = measured ? *measured : sums_of(row->logits, size);
    const Measurement left = row->removed_count ? sums_of(row->masked, size) : raw;
    const bool is_known = measured && !row->removed_count;
    Scores scores = {.logits = row->masked, .size = size, .values = own_below, .weights = weights, .whole_mass = NAN, .near_mass = NAN};
    Measurement found = raw;
    long place = -1;
    row->out.place = -1;
    if (!isfinite(raw.peak) || !(raw.peak - left.peak <= MOST_LOWERED)) return;
    found.mass = left.mass * exp(left.peak - raw.peak);
    for (long wanted = chain->wanted; place < 0; wanted *= HEAD_GROWTH) {
        const bool is_first = wanted == chain->wanted;
        if (!is_known || !is_first) find_most_probable(row->masked, size, wanted, room, own_ids, own_below, &found);
        if (found.count > room) return;
        if (is_known && is_first) {
            memcpy(own_ids, ids, found.count * sizeof *ids);
            memcpy(own_below, below, found.count * sizeof *below);
        }
        lower_peak(own_below, found.count);
        scores.count = found.count, scores.complete = found.complete;
        scores.peak = left.peak, scores.mass = scores.raw_mass = left.mass;
        if (chain->greedy) place = 0;
        else if (apply_chain(&scores, chain)) place = draw_place(&scores, row->draw);
        if (place < 0 && (found.complete || (size > room && wanted * HEAD_GROWTH > room))) return;
    }
    record_tokens(row, &raw, &scores, own_ids, found.count, place);
}

typedef struct {
    DrawRow *rows;
    int64_t count, size;
} Drawing;

static void draw_each(Member *self, void *argument) {
    const Drawing *all = argument;
    TASKS(self, r, all->count) tokenglass_draw(all->rows + r, all->size, NULL, NULL, NULL);
    barrier(self, all->count);
}
