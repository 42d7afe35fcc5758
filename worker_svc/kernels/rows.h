// What a layer does row by row: norms, gates, rotation.

#pragma once

#include "cache.h"

namespace albireo {

constexpr int MOST_DIM = 256;  // of a head

template <typename T, typename O>
void norm_row(T *x, const T *added, const T *weight, O *out, int64_t width, float eps) {
    Floats squares = {};
    for (int64_t i = 0; i < width; i += LANES) {
        if (added) store(x + i, load(x + i) + load(added + i));
        const Floats number = load(x + i);
        squares += number * number;
    }
    const float scale = 1.0f / std::sqrt(sum(squares) / width + eps);
    for (int64_t i = 0; i < width; i += LANES) store(out + i, load(x + i) * scale * load(weight + i));
}

template <typename T>
void norm(T *x, const T *added, const T *weight, T *out, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for if (rows * width > ALONE)
    for (int64_t row = 0; row < rows; row++)
        norm_row(x + row * width, added ? added + row * width : nullptr, weight, out + row * width, width, eps);
}

template <typename T>
void gate(const T *gate_up, T *out, int64_t rows, int64_t width) {
#pragma omp parallel for if (rows * width > ALONE)
    for (int64_t row = 0; row < rows; row++) {
        const T *gates = gate_up + row * 2 * width, *ups = gates + width;
        for (int64_t i = 0; i < width; i += LANES) {
            const Floats number = load(gates + i);
            const Floats silu = number / (1.0f + exponential(number < -87.0f ? Floats{} : -number));
            store(out + row * width + i, (number < -87.0f ? number * 0.0f : silu) * load(ups + i));  // -inf is NaN
        }
    }
}

struct Heads {
    int64_t queries, kv, dim;
};

// The pairs (i, i + dim / 2) of a head, turned by the angles of its position.
template <typename S, typename T>
void turn(const S *x, const T *cos, const T *sin, T *out, int64_t dim) {
    const int64_t half = dim / 2;
    if (half % LANES) {  // the smallest heads: their halves are no whole vectors
        for (int64_t i = 0; i < half; i++) {
            const float first = number(x[i]), second = number(x[half + i]);
            out[i] = rounded<T>(first * number(cos[i]) - second * number(sin[i]));
            out[half + i] = rounded<T>(second * number(cos[i]) + first * number(sin[i]));
        }
        return;
    }
    for (int64_t i = 0; i < half; i += LANES) {
        const Floats first = load(x + i), second = load(x + half + i);
        store(out + i, first * load(cos + i) - second * load(sin + i));
        store(out + half + i, second * load(cos + i) + first * load(sin + i));
    }
}

// Likewise; the head is normed before, if there is a weight.
template <typename T>
void turn(T *x, const T *weight, float eps, const T *cos, const T *sin, T *out, int64_t dim) {
    if (!weight) return turn(x, cos, sin, out, dim);
    float normed[MOST_DIM];
    norm_row(x, static_cast<const T *>(nullptr), weight, normed, dim, eps);
    turn(normed, cos, sin, out, dim);
}

template <typename Row, typename T>
void rotate(T *qkv, const T *cos, const T *sin, const T *q_norm, const T *k_norm, float eps,
            const int64_t *kv_rows, T *q, typename Row::Number *keys, typename Row::Number *values, int64_t rows,
            Heads heads) {
    const int64_t dim = heads.dim, width = (heads.queries + 2 * heads.kv) * dim, kept = Row::width(dim);
#pragma omp parallel for if (rows * width > ALONE)
    for (int64_t row = 0; row < rows; row++) {
        T *from = qkv + row * width, turned[MOST_DIM];
        const T *own_cos = cos + row * dim / 2, *own_sin = sin + row * dim / 2;
        for (int64_t head = 0; head < heads.queries; head++, from += dim)
            turn(from, q_norm, eps, own_cos, own_sin, q + (row * heads.queries + head) * dim, dim);
        const int64_t at = kv_rows[row] * heads.kv;
        for (int64_t head = 0; head < heads.kv; head++, from += dim) {
            turn(from, k_norm, eps, own_cos, own_sin, turned, dim);
            Row::write(turned, keys + (at + head) * kept, dim);
        }
        for (int64_t head = 0; head < heads.kv; head++, from += dim) Row::write(from, values + (at + head) * kept, dim);
    }
}

}  // namespace albireo
