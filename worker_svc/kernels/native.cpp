// The library of kernels: worker_svc/kernels/native.py calls it, whose docstrings give shapes.
//
// Plain C functions with plain pointers, without headers of torch or Python: one build serves all their versions.

// On x86-64 a build without vectors of 8 lanes or more would be slower than torch's operations: it is empty.

#if !defined(__x86_64__) || defined(__AVX2__)

#include "draw.h"
#include "layers.h"

using albireo::Bf16;

// All else is hidden: several builds in one process, as in tests, must not share what has one name.
#define EXPORTED extern "C" __attribute__((visibility("default")))

// What worker_svc/kernels/library.py expects; to be raised with every change of a function or a structure.
EXPORTED int32_t version() { return 3; }

// clang-format off
#define EXPORT(T, NAME)                                                                                            \
    EXPORTED void norm_##NAME(T *x, const T *added, const T *weight, T *out, int64_t rows, int64_t width,          \
                              float eps) {                                                                         \
        albireo::norm(x, added, weight, out, rows, width, eps);                                                    \
    }                                                                                                              \
    EXPORTED void gate_##NAME(const T *gate_up, T *out, int64_t rows, int64_t width) {                             \
        albireo::gate(gate_up, out, rows, width);                                                                  \
    }

// `KIND`: of the rows in the KV cache.
#define EXPORT_KV(T, NAME, ROW, KIND)                                                                              \
    EXPORTED void rotate_##KIND##NAME(T *qkv, const T *cos, const T *sin, const T *q_norm, const T *k_norm,        \
                                      float eps, const int64_t *kv_rows, T *q, ROW::Number *keys,                  \
                                      ROW::Number *values, int64_t rows, int64_t queries, int64_t kv,              \
                                      int64_t dim) {                                                               \
        albireo::rotate<ROW>(qkv, cos, sin, q_norm, k_norm, eps, kv_rows, q, keys, values, rows,                   \
                             {queries, kv, dim});                                                                  \
    }                                                                                                              \
    EXPORTED void attention_##KIND##NAME(const T *q, const ROW::Number *keys, const ROW::Number *values,           \
                                         const int64_t *blocks, int64_t columns, const int64_t *positions, T *out, \
                                         int64_t rows, int64_t queries, int64_t kv, int64_t dim) {                 \
        albireo::attention<ROW>(q, keys, values, blocks, columns, positions, out, rows, {queries, kv, dim});       \
    }

EXPORT(Bf16, bf16)
EXPORT(float, fp32)
EXPORT_KV(Bf16, bf16, albireo::Plain<Bf16>, )
EXPORT_KV(float, fp32, albireo::Plain<float>, )
EXPORT_KV(Bf16, bf16, albireo::Quantized, int8_)
EXPORT_KV(float, fp32, albireo::Quantized, int8_)

EXPORTED void draw_fp32(const float *logits, int64_t stride, int64_t size, int64_t count, const int64_t *rows,
                        const float *temperature, const int64_t *top_k, const float *top_p, const float *min_p,
                        const double *uniforms, int64_t *ids) {
    albireo::draw(logits, stride, size, count, {rows, temperature, top_k, top_p, min_p, uniforms}, ids);
}

#ifdef __AVX512BF16__
#define EXPORT_MATMUL(OUT, NAME)                                                                                   \
    EXPORTED void matmul_##NAME(const Bf16 *x, const Bf16 *weight, const Bf16 *bias, OUT *out, int64_t rows,       \
                                int64_t outputs, int64_t inputs) {                                                 \
        albireo::matmul(x, weight, bias, out, rows, outputs, inputs);                                              \
    }

EXPORT_MATMUL(Bf16, bf16)
EXPORT_MATMUL(float, wide_bf16)
#endif

#ifdef __AVX512VNNI__
#define EXPORT_INT8(T, OUT, NAME)                                                                                  \
    EXPORTED void matmul_int8_##NAME(const T *x, const int8_t *weight, const float *scales,                        \
                                     const int32_t *offsets, const T *bias, OUT *out, uint8_t *bytes,              \
                                     float *row_scales, int64_t rows, int64_t outputs, int64_t inputs,             \
                                     int64_t part) {                                                               \
        albireo::matmul_int8(x, weight, scales, offsets, bias, out, bytes, row_scales, rows, outputs, inputs,      \
                             part);                                                                                \
    }

EXPORT_INT8(Bf16, Bf16, bf16)
EXPORT_INT8(Bf16, float, wide_bf16)
EXPORT_INT8(float, float, fp32)
EXPORT_INT8(float, float, wide_fp32)

#define EXPORT_LAYERS(T, NAME, ROW, KIND)                                                                          \
    EXPORTED int layers_##KIND##NAME(const albireo::Model *model, const albireo::Layer *layers, int64_t count,     \
                                     const albireo::Rows *rows, const albireo::Space *space) {                     \
        return albireo::run<ROW, T>(*model, layers, count, *rows, *space);                                         \
    }

EXPORT_LAYERS(Bf16, bf16, albireo::Plain<Bf16>, )
EXPORT_LAYERS(float, fp32, albireo::Plain<float>, )
EXPORT_LAYERS(Bf16, bf16, albireo::Quantized, int8_)
EXPORT_LAYERS(float, fp32, albireo::Quantized, int8_)
#endif

#endif
