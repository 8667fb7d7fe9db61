// What a sampler asks of one position's logits: the greatest, sums over the exponentials, and the most probable tokens.
#pragma once
#include <float.h>
#include <stdbool.h>
#include "threads.h"
#include "vectors.h"

#define DOUBLES (LANES / 2)
#define MASS_ERROR 0x1p-17  // relative, of `tokenglass_mass_near`
#define MOST_SCALED 0x1p20  // times that a temperature enlarges or reduces what float32 does for
#define MAX_GROUPS 4096
#define GROUPS_PER_TOKEN 8  // for each token that is asked for: few of those then share one
#define ENOUGH_MASS 0.9     // of all: where the tokens hold less,
#define WIDENING_FACTOR 4   // times as many are looked at,
#define MAX_WANTED 4096     // but no more than these: not every sampler needs them
#define MOST_RANKED 192     // tokens that are sorted soonest without a radix
#define LEAST_EXPONENT -708.0  // below it e**x has no full double
#define LEAST_NORMAL_EXPONENT -708.3964185322641  // the logarithm of the least full double

typedef double dvec __attribute__((vector_size(8 * DOUBLES)));
typedef int64_t lvec __attribute__((vector_size(8 * DOUBLES)));
typedef float fvec __attribute__((vector_size(4 * DOUBLES)));
typedef fvec fvec_anywhere __attribute__((aligned(1), may_alias));

typedef struct {
    double peak, mass, weighted;  // the greatest logit; sums of e**x and x * e**x for x = logit - peak
    int64_t count, complete;      // tokens found, and whether no other is possible
} Measurement;

INLINE bool any_of(lvec lanes) {
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask((__m512i)lanes, (__m512i)lanes);
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)lanes, (__m256i)lanes);
#else
    return lanes[0] | lanes[1];
#endif
}

INLINE dvec widen_floats(fvec x) {
#if LANES == 8 && defined(__AVX2__)  // the compiler would take several instructions
    return (dvec)_mm256_cvtps_pd((__m128)x);
#else
    return __builtin_convertvector(x, dvec);
#endif
}

// DOUBLES numbers, or as many as there are and minus infinity.
INLINE dvec load_doubles(const float *from, long left) {
    float last[DOUBLES];
    if (left < DOUBLES) {
        for (int d = 0; d < DOUBLES; d++) last[d] = d < left ? from[d] : -INFINITY;
        from = last;
    }
    return widen_floats(*(const fvec_anywhere *)from);
}

// e**x for x <= 0 within a unit in the last place, 0 below LEAST. (Cody and Waite's reduction, Taylor's series.)
INLINE dvec exp_of_double(dvec x) {
    lvec in_range = x >= LEAST_EXPONENT;
    x = (dvec)((lvec)x & in_range);
    dvec shifted = x * 1.4426950408889634 + 0x1.8p52;  // the whole number is in the low bits
    dvec octaves = shifted - 0x1.8p52;
    dvec rest = x - octaves * 0x1.62e42fee00000p-1 - octaves * 0x1.a39ef35793c76p-33;
    // Not by Horner's scheme, whose every product waits for the one before it, but in pairs (Estrin 1960).
    dvec square = rest * rest, fourth = square * square;
    dvec low = (rest * (1.0 / 120) + 1.0 / 24) * square + (rest * (1.0 / 6) + 0.5);
    dvec middle = (rest * (1.0 / 362880) + 1.0 / 40320) * square + (rest * (1.0 / 5040) + 1.0 / 720);
    dvec high = (rest * (1.0 / 6227020800) + 1.0 / 479001600) * square + (rest * (1.0 / 39916800) + 1.0 / 3628800);
    dvec sum = ((high * fourth + middle) * fourth + low) * square + rest + 1.0;
    dvec power = (dvec)(((lvec)shifted + 1023) << 52);
    return (dvec)((lvec)(sum * power) & in_range);
}

// A float as a whole number of the same order, and back.
INLINE int32_t ordered_bits(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ (bits >> 31 & 0x7fffffff);
}

INLINE float from_ordered_bits(int32_t bits) {
    float value;
    bits ^= bits >> 31 & 0x7fffffff;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// A number that `wanted` of `values` reach, or the greatest that more do: found by halving.
static float kth_greatest(const float *values, long count, long wanted) {
    int64_t low = ordered_bits(-INFINITY), high = ordered_bits(INFINITY);
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        float least = from_ordered_bits(middle);
        int32_t reach = 0;
        for (int32_t i = 0; i < count; i++) reach += values[i] >= least;
        if (reach == wanted) return least;
        if (reach > wanted) low = middle;
        else high = middle - 1;
    }
    return from_ordered_bits(low);
}

// A floor that at least `wanted` tokens reach, and hardly more: `wanted` of the greatest of disjoint groups do.
static float floor_of(const float *logits, long size, long wanted) {
    float greatest[MAX_GROUPS];
    long groups = min(min(GROUPS_PER_TOKEN * wanted, size / 2), MAX_GROUPS);
    if (groups <= wanted) return -INFINITY;
    memcpy(greatest, logits, groups * sizeof *greatest);
    for (long from = groups; from + groups <= size; from += groups)
        for (long i = 0; i < groups; i++) greatest[i] = logits[from + i] > greatest[i] ? logits[from + i] : greatest[i];
    return kth_greatest(greatest, groups, wanted);
}

// A number as a key that is the smaller the higher it is; -0 and 0 are one.
INLINE uint64_t key_of(double value) {
    uint64_t bits;
    value += 0.0;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 63 ? bits : ~bits & ~(1ull << 63);
}

// Puts tokens in order, from the highest down, those that are equal as they came: each goes behind those that it follows.
// It is compared with all in one loop: where two loops end, one before and one after it, is guessed wrong each time.
static void rank_sort(int64_t *ids, double *below, long count, int64_t *other_ids, double *other) {
    for (long i = 0; i < count; i++) {
        const double own = below[i];
        int64_t place = 0;
        for (long j = 0; j < count; j++) place += (below[j] > own) | ((below[j] == own) & (j < i));
        other[place] = own;
        other_ids[place] = ids[i];
    }
    memcpy(below, other, count * sizeof *below);
    memcpy(ids, other_ids, count * sizeof *ids);
}

// Does the same by radix, from the lowest byte of their keys up, but for bytes that all have in common.
static void radix_sort(int64_t *ids, double *below, long count, int64_t *other_ids, double *other) {
    const int bytes = sizeof(double);
    uint32_t places[sizeof(double)][256] = {0};
    for (long i = 0; i < count; i++) {
        uint64_t key = key_of(below[i]);
        for (int b = 0; b < bytes; b++) places[b][key >> 8 * b & 255]++;
    }
    for (int b = 0; b < bytes && count; b++) {
        uint32_t place = 0;
        if (places[b][key_of(below[0]) >> 8 * b & 255] == count) continue;
        for (int byte = 0; byte < 256; byte++) {
            uint32_t some = places[b][byte];
            places[b][byte] = place;
            place += some;
        }
        for (long i = 0; i < count; i++) {
            uint32_t to = places[b][key_of(below[i]) >> 8 * b & 255]++;
            other[to] = below[i];
            other_ids[to] = ids[i];
        }
        memcpy(below, other, count * sizeof *below);
        memcpy(ids, other_ids, count * sizeof *ids);
    }
}

// The least float that is no further below the peak than `reach` is, once both are rounded; nor infinite.
static float least_as_near(float reach, double peak) {
    int64_t low = ordered_bits(-FLT_MAX), high = ordered_bits(reach);
    const double floor = reach - peak;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (from_ordered_bits(middle) - peak >= floor) high = middle;
        else low = middle + 1;
    }
    return from_ordered_bits(low);
}

// Finds the tokens that reach `least`, by id; how many there are. Those beyond `room` are all written to the place behind it.
// A branch for each token would be guessed wrong half of the time.
static long collect(const float *logits, long size, double peak, float least, long room, int64_t *ids, double *below) {
    long count = 0;
    for (long i = 0; i < size; i += LANES) {
        const long some = min(LANES, size - i);
        if (some == LANES && !any_of((lvec)(load(logits + i) >= least))) continue;
        for (long k = i; k < i + some; k++) {
            const long to = min(count, room);
            ids[to] = k, below[to] = logits[k] - peak;
            count += logits[k] >= least;
        }
    }
    return count;
}

// Sum of e**x.
static double mass_of_tokens(const double *below, long count) {
    double sum = 0;
    for (long i = 0; i < count; i += DOUBLES) {
        dvec x = (dvec){0} - INFINITY;
        memcpy(&x, below + i, min(DOUBLES, count - i) * sizeof *below);
        x = exp_of_double(x);
        UNROLL for (int d = 0; d < DOUBLES; d++) sum += x[d];
    }
    return sum;
}

// The peak of logits (size,) and the sums over the exponentials. The peak is no number where a logit is none.
static Measurement sums_of(const float *logits, long size) {
    vec most = splat(-INFINITY);
    ivec none = isplat(0);
    for (long i = 0; i < size; i += LANES) {
        long some = min(LANES, size - i);
        vec value = load_some(logits + i, some);
        none |= value != value;
        if (some < LANES) value = blend(iota() < (int32_t)some, value, splat(-INFINITY));
        most = larger(value, most);
    }
    Measurement sums = {.peak = any_of((lvec)none) ? NAN : lane_max(most)};
    if (!isfinite(sums.peak)) return sums;
    dvec mass = {0}, weighted = {0};
    for (long i = 0; i < size; i += DOUBLES) {
        dvec x = load_doubles(logits + i, size - i) - sums.peak, power = exp_of_double(x);
        mass += power;
        weighted += power * (dvec)((lvec)x & (x >= LEAST_EXPONENT));
    }
    UNROLL for (int d = 0; d < DOUBLES; d++) sums.mass += mass[d], sums.weighted += weighted[d];
    return sums;
}

// The sum of e**((logit - peak) / temperature) over logits (size,).
double tokenglass_mass_at(const float *logits, int64_t size, double peak, double temperature) {
    dvec mass = {0};
    double sum = 0;
    for (long i = 0; i < size; i += DOUBLES) mass += exp_of_double((load_doubles(logits + i, size - i) - peak) / temperature);
    UNROLL for (int d = 0; d < DOUBLES; d++) sum += mass[d];
    return sum;
}

// The same in float32, within MASS_ERROR. Where u is 2**-24, x = (logit - peak) / temperature is rounded three times and exp_of
// errs by 4u, so a term by 3u |x| + 4u. The mean |x| over the mass is entropy less log mass: at most log(size), or 22. Hence 70u.
double tokenglass_mass_near(const float *logits, int64_t size, double peak, double temperature) {
    if (fmax(temperature, 1 / temperature) > MOST_SCALED) return tokenglass_mass_at(logits, size, peak, temperature);
    const float inverse = 1 / temperature;
    dvec mass = {0};
    double sum = 0;
    for (long i = 0; i < size; i += LANES) {
        const long some = min(LANES, size - i);
        vec power = exp_of((load_some(logits + i, some) - (float)peak) * inverse);
        if (some < LANES) power = blend(iota() < (int32_t)some, power, splat(0));
        fvec halves[2];
        memcpy(halves, &power, sizeof halves);
        mass += widen_floats(halves[0]) + widen_floats(halves[1]);
    }
    UNROLL for (int d = 0; d < DOUBLES; d++) sum += mass[d];
    return sum;
}

// Adds to the sums of logits (size,) the most probable tokens in order: at least `wanted` where as many are possible, and
// more where those hold too little of the mass. `ids` and `below` take twice `room`, and mean nothing where there are more
// than `room`. `below` tells how far each lies under the peak; a token that is not told lies lower than all of these.
static void find_most_probable(const float *logits, long size, long wanted, long room, int64_t *ids, double *below,
                               Measurement *out) {
    double peak = out->peak;
    while (1) {
        float least = floor_of(logits, size, wanted);
        out->count = collect(logits, size, peak, least_as_near(least, peak), room, ids, below);
        out->complete = out->count == size || least == -INFINITY;
        if (out->complete || out->count > room || wanted * WIDENING_FACTOR > MAX_WANTED) break;
        if (mass_of_tokens(below, out->count) >= ENOUGH_MASS * out->mass) break;
        wanted *= WIDENING_FACTOR;
    }
    if (out->count <= MOST_RANKED) rank_sort(ids, below, out->count, ids + room, below + room);
    else if (out->count <= room) radix_sort(ids, below, out->count, ids + room, below + room);
}

// The sums of logits (size,) and the most probable tokens.
void tokenglass_measure(const float *logits, int64_t size, int64_t wanted, int64_t room, int64_t *ids, double *below,
                        Measurement *out) {
    *out = sums_of(logits, size);
    if (isfinite(out->peak)) find_most_probable(logits, size, wanted, room, ids, below, out);
}

typedef struct {  // what `tokenglass_measure` takes and writes, for each of several rows
    const float *const *logits;
    int64_t rows, size, wanted, room, *ids;  // ids (rows, 2 * room)
    double *below;                           // (rows, 2 * room)
    Measurement *out;
} Measuring;

static void measure_each(Member *self, void *argument) {
    const Measuring *all = argument;
    TASKS(self, r, all->rows) {
        long place = 2 * r * all->room;
        tokenglass_measure(all->logits[r], all->size, all->wanted, all->room, all->ids + place, all->below + place, all->out + r);
    }
    barrier(self, all->rows);
}

typedef struct {  // one token of each of several rows
    const float *logits;  // (rows, size)
    int64_t rows, size;
    const int64_t *ids;  // (rows,)
    Measurement *out;    // (rows,)
} TokenMeasuring;

// The sums of each row, and in `count` the rank of its token: 1 for the highest.
static void measure_tokens(Member *self, void *argument) {
    const TokenMeasuring *all = argument;
    TASKS(self, r, all->rows) {
        const float *logits = all->logits + r * all->size, own = logits[all->ids[r]];
        int64_t rank = 1;
        for (int64_t i = 0; i < all->size; i++) rank += logits[i] > own;
        for (int64_t i = 0; i < all->ids[r]; i++) rank += logits[i] == own;
        all->out[r] = sums_of(logits, all->size);
        all->out[r].count = rank;
    }
    barrier(self, all->rows);
}
