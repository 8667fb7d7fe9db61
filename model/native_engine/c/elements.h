// What is done to the numbers of one position: norms, activations, caps.
#pragma once
#include "program.h"
#include "vectors.h"

NOINLINE void normalise(const Norm *norm, const float *x, float *out, bool add) {
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
    float scale = norm->kind == NORM_SCALE ? 1 : 1 / sqrtf((lane_sum(squares) + rest) / n + (float)norm->eps);
    for (long i = 0; i < n; i += LANES) {
        long some = min(LANES, n - i);
        vec value = (load_some(x + i, some) - mean) * scale * load_some(norm->weight + i, some);
        if (norm->bias) value += load_some(norm->bias + i, some);
        if (add) value += load_some(out + i, some);
        store_some(out + i, value, some);
    }
}

INLINE vec activation_of(const Operation *op, vec x) {
    switch (op->activation) {
        case SILU: return x / (1.0f + exp_of(-x));
        case GELU_TANH: return 0.5f * x * (1.0f + tanh_of(0.797884561f * (x + 0.044715f * x * x * x)));
        case RELU: return blend(x > 0.0f, x, splat(0));
        case RELU_SQUARED: return blend(x > 0.0f, x * x, splat(0));
        case XIELU: {
            vec below = (exp_of(blend(x > 0.0f, splat(0), x)) - 1.0f - x) * (float)op->below;
            return blend(x > 0.0f, x * x * (float)op->above, below) + 0.5f * x;
        }
        case GELU: UNROLL for (int i = 0; i < LANES; i++) x[i] *= 0.5f * (1 + erff(x[i] * 0.707106781f)); return x;
        default: return x;
    }
}

// x = the activation of x, times `other` where there is one. `count` is rounded up to vectors: buffers are padded.
NOINLINE void activate(const Operation *op, float *x, const float *other, long count) {
    if (op->activation == CLAMPED_SWIGLU) {
        vec limit = splat((float)op->above);
        for (long i = 0; i < count; i += LANES) {
            vec gate = load(x + i), up = load(other + i);
            gate = blend(gate > limit, limit, gate);
            up = blend(up > limit, limit, blend(up < -limit, -limit, up));
            store(x + i, (up + 1.0f) * gate / (1.0f + exp_of(gate * -(float)op->below)));
        }
        return;
    }
    for (long i = 0; i < count; i += LANES) {
        vec value = activation_of(op, load(x + i));
        store(x + i, other ? value * load(other + i) : value);
    }
}

// Logits times a scale, then bounded by a cap where there is one.
NOINLINE void finish_logits(float *x, long count, float scale, float cap) {
    for (long i = 0; i < count; i += LANES) {
        long some = min(LANES, count - i);
        vec value = load_some(x + i, some) * scale;
        store_some(x + i, cap ? cap * tanh_of(value / cap) : value, some);
    }
}
