// All layers of a model in one call: for steps of few rows, where calls from Python are a part of the time.

#pragma once

#include "attention.h"
#include "matmul.h"

#ifdef __AVX512VNNI__

namespace albireo {

// The mirrors of these are in worker_svc/kernels/native_layers.py.

struct Product {
    const void *weight, *bias;
    const float *scales;     // null: bf16 weights; else 8 bits
    const int32_t *offsets;
    int64_t outputs, inputs, part;
};

struct Layer {
    const void *attention_norm, *mlp_norm, *q_norm, *k_norm;
    Product qkv, out, gate_up, down;
    void *keys, *values;
};

struct Model {
    int64_t hidden, units;
    Heads heads;
    float eps, head_eps;
};

struct Group {  // rows that attend together
    const int64_t *blocks, *positions;
    int64_t columns, first, rows;
};

struct Rows {
    void *x, *added;  // `added`: empty before the first layer; behind the last one, what is still to be added to x
    const void *cos, *sin;
    const int64_t *kv_rows;
    const Group *groups;
    int64_t count, num_groups;
    int (*reduce)();  // sums `added` over the ranks; not 0: it failed. Null where there is one
};

struct Space {  // each for all rows
    void *normed, *qkv, *q, *attended, *gate_up, *gated;
    uint8_t *bytes;  // of the widest input
    float *row_scales;
};

template <typename T>
void product(const Product &product, const void *x, void *out, int64_t rows, const Space &space) {
    const T *from = (const T *)x, *bias = (const T *)product.bias;
    T *to = (T *)out;
    if (product.scales) {
        matmul_int8(from, (const int8_t *)product.weight, product.scales, product.offsets, bias, to, space.bytes,
                    space.row_scales, rows, product.outputs, product.inputs, product.part);
        return;
    }
#ifdef __AVX512BF16__
    if constexpr (sizeof(T) == sizeof(Bf16))
        matmul(from, (const Bf16 *)product.weight, bias, to, rows, product.outputs, product.inputs);
#endif
}

template <typename Row, typename T>
void attend_to_cache(const Model &model, const Layer &layer, const Rows &rows, const Space &space) {
    product<T>(layer.qkv, space.normed, space.qkv, rows.count, space);
    using Number = typename Row::Number;
    rotate<Row>((T *)space.qkv, (const T *)rows.cos, (const T *)rows.sin, (const T *)layer.q_norm, (const T *)layer.k_norm,
                model.head_eps, rows.kv_rows, (T *)space.q, (Number *)layer.keys, (Number *)layer.values, rows.count,
                model.heads);
    const int64_t width = model.heads.queries * model.heads.dim;
    for (int64_t i = 0; i < rows.num_groups; i++) {
        const Group &group = rows.groups[i];
        attention<Row>((const T *)space.q + group.first * width, (const Number *)layer.keys,
                       (const Number *)layer.values, group.blocks, group.columns, group.positions,
                       (T *)space.attended + group.first * width, group.rows, model.heads);
    }
    product<T>(layer.out, space.attended, rows.added, rows.count, space);
}

// Returns what `reduce` has returned, when it has failed.
template <typename Row, typename T>
int run(const Model &model, const Layer *layers, int64_t count, const Rows &rows, const Space &space) {
    T *x = (T *)rows.x, *added = (T *)rows.added, *normed = (T *)space.normed;
    for (int64_t i = 0; i < count; i++) {
        const Layer &layer = layers[i];
        norm(x, i ? added : nullptr, (const T *)layer.attention_norm, normed, rows.count, model.hidden, model.eps);
        attend_to_cache<Row, T>(model, layer, rows, space);
        if (const int failed = rows.reduce ? rows.reduce() : 0) return failed;
        norm(x, added, (const T *)layer.mlp_norm, normed, rows.count, model.hidden, model.eps);
        product<T>(layer.gate_up, normed, space.gate_up, rows.count, space);
        gate((const T *)space.gate_up, (T *)space.gated, rows.count, model.units);
        product<T>(layer.down, space.gated, added, rows.count, space);
        if (const int failed = rows.reduce ? rows.reduce() : 0) return failed;
    }
    return 0;
}

}  // namespace albireo
#endif
