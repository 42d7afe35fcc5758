// How a row of the KV cache, the key or the value of one head and one token, is in memory.

#pragma once

#include "vectors.h"

namespace albireo {

// In the model's type: its numbers.
template <typename T>
struct Plain {
    using Number = T;
    static int64_t width(int64_t dim) { return dim; }
    static Floats scaled(Floats x, const T *, int64_t, int64_t) { return x; }
    static void write(const T *x, T *to, int64_t dim) { std::memcpy(to, x, dim * sizeof(T)); }
};

// In 8 bits: its numbers, their scale in fp32, and 4 bytes of zeros (worker_svc/model/kv_cache.py).
struct Quantized {
    using Number = int8_t;
    static constexpr int64_t TAIL = 8;
    static int64_t width(int64_t dim) { return dim + TAIL; }
    // Times the scales of 16 rows, `stride` bytes apart.
    static Floats scaled(Floats x, const int8_t *rows, int64_t stride, int64_t dim) {
        float scales[LANES];
        for (int i = 0; i < LANES; i++) std::memcpy(scales + i, rows + i * stride + dim, sizeof(float));
        return x * load(scales);
    }
    // What is not finite makes the scale NaN.
    template <typename T>
    static void write(const T *x, int8_t *to, int64_t dim) {
        Reach reach;
        for (int64_t i = 0; i < dim; i += LANES) reach.add(load(x + i));
        const float steps = reach.steps();
        for (int64_t i = 0; i < dim; i += LANES) {
            const Floats scaled = load(x + i) * steps;
            const Masks found = __builtin_convertvector(scaled + (scaled < 0.0f ? all(-0.5f) : all(0.5f)), Masks);
            const Bytes bytes = __builtin_convertvector(found, Bytes);
            std::memcpy(to + i, &bytes, sizeof bytes);
        }
        const float tail[TAIL / sizeof(float)] = {reach.step(), 0.0f};
        std::memcpy(to + dim, tail, sizeof tail);
    }
};

}  // namespace albireo
