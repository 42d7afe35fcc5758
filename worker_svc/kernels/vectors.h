// Vectors of 16 lanes, which the compiler maps to what the instruction set has.
//
// Numbers are bf16 or fp32 in memory; all arithmetic is fp32, rounded once at the end.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace albireo {

constexpr int LANES = 16;         // every dimension is a multiple of it
constexpr int64_t ALONE = 8192;   // numbers that one thread works on faster than several

typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int32_t Masks __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(16)));
typedef int16_t Shorts __attribute__((vector_size(32)));
struct Bf16 { uint16_t bits; };

inline Floats load(const float *from) {
    Floats found;
    std::memcpy(&found, from, sizeof found);
    return found;
}

inline Floats load(const Bf16 *from) {
    Halves found;
    std::memcpy(&found, from, sizeof found);
    return (Floats)(__builtin_convertvector(found, Words) << 16);
}

inline Floats load(const int8_t *from) {
#ifdef __AVX512F__
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
#else
    Bytes found;
    std::memcpy(&found, from, sizeof found);
    const Shorts wider = __builtin_convertvector(found, Shorts);  // in one step g++ goes number by number
    return __builtin_convertvector(__builtin_convertvector(wider, Masks), Floats);
#endif
}

inline void store(float *to, Floats x) { std::memcpy(to, &x, sizeof x); }

inline void store(Bf16 *to, Floats x) {  // rounded to nearest, ties to even
#ifdef __AVX512BF16__
    const __m256bh found = _mm512_cvtneps_pbh((__m512)x);
#else
    const Words bits = (Words)x, odd = (bits >> 16) & 1;
    const Words rounded = (bits + 0x7fff + odd) >> 16;
    const Words quiet = Words{} + 0x7fc0;
    const Halves found = __builtin_convertvector(x != x ? quiet : rounded, Halves);
#endif
    std::memcpy(to, &found, sizeof found);
}

// Blocks are pages apart, where the processor foresees no access.
template <typename T>
inline void prefetch(const T *from, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(from + i);
}

inline float number(float x) { return x; }

inline float number(Bf16 x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float found;
    std::memcpy(&found, &bits, sizeof found);
    return found;
}

template <typename T>
inline T rounded(float x) {
    T found[LANES];
    store(found, Floats{x});
    return found[0];
}

inline Floats all(float x) { return Floats{} + x; }

inline Floats larger(Floats x, Floats y) { return x > y ? x : y; }  // y where one is NaN

inline float sum(Floats x) {
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += x[lane];
    return total;
}

inline float highest(Floats x) {
    float found = x[0];
    for (int lane = 1; lane < LANES; lane++) found = std::max(found, x[lane]);
    return found;
}

// How far numbers reach from zero, for 127 steps in either direction.
struct Reach {
    Floats most = {}, nothing = {};  // nothing: NaN where a number is not finite

    void add(Floats x) {
        most = larger(larger(x, -x), most);
        nothing += x * 0.0f;
    }
    float steps() const {  // for 1
        const float top = highest(most);
        return top > LEAST ? 127.0f / top : 0.0f;
    }
    float step() const {  // NaN where a number is not finite
        const float top = highest(most);
        return (top > LEAST ? top / 127.0f : 0.0f) + sum(nothing);
    }

private:
    static constexpr float LEAST = 1e-30f;
};

// The sums of 16 vectors, as one vector: each round adds neighbours of neighbouring vectors.
template <int COUNT = LANES / 2>
inline Floats sums(const Floats *x) {
    const Masks even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    Floats half[COUNT];
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; i++)
        half[i] = __builtin_shuffle(x[2 * i], x[2 * i + 1], even) + __builtin_shuffle(x[2 * i], x[2 * i + 1], even + 1);
    if constexpr (COUNT == 1)
        return half[0];
    else
        return sums<COUNT / 2>(half);
}

// exp for arguments up to 87; 0 below -87. Powers of two, times a polynomial of the fraction (of degree 6, the
// Taylor series of 2^f; |f| is at most 1/2, which leaves 2e-7).
inline Floats exponential(Floats x) {
    const Floats scaled = x * 1.44269504f;
    const Floats shifted = scaled + 12582912.0f;  // 1.5 * 2^23: the integer is in the low bits
    const Floats f = scaled - (shifted - 12582912.0f);
    Floats p = all(1.5403530e-4f);
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    const Floats power = (Floats)(((Words)shifted + 127) << 23);
    return x < -87.0f ? Floats{} : p * power;  // NaN is not below, and stays NaN
}

}  // namespace albireo
