// Products with packed weights, for processors that multiply pairs of bf16 numbers (AVX512-BF16).
//
// The weights are read once a product, in the order of memory; while a panel of them is multiplied with all rows,
// the next one comes from memory. Threads take panels as they get done: one that the system holds up for a while
// (other processes have work too) does not hold up the others.

#pragma once

#include "vectors.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#include <omp.h>

namespace albireo {

constexpr int PANEL = 2 * LANES;      // outputs that are computed together
constexpr int MOST_ROWS = 12;         // of a tile: its sums and what they need fill the registers
constexpr int64_t AHEAD = 16 << 10;   // bytes between what one tile multiplies and what it fetches
constexpr int64_t LINE = 64;          // bytes that come from memory at a time

// What a tile fetches for later: `step` bytes for each pair of inputs, two lines of them where it is alone.
struct Fetch {
    const char *from;
    int64_t step;
};

// ROWS rows of `x` times one panel: pair by pair of inputs, 32 outputs each.
template <int ROWS, bool ALONE_WITH_PANEL>
inline void tile(const Bf16 *x, int64_t inputs, const Bf16 *panel, const Floats (&start)[2], Fetch fetch, Bf16 *out,
                 int64_t outputs) {
    __m512 sum[ROWS][2];
    for (int row = 0; row < ROWS; row++) sum[row][0] = (__m512)start[0], sum[row][1] = (__m512)start[1];
    for (int64_t i = 0; i < inputs; i += 2, panel += 2 * PANEL, fetch.from += fetch.step) {
        const __m512bh first = (__m512bh)_mm512_loadu_si512(panel), second = (__m512bh)_mm512_loadu_si512(panel + PANEL);
        _mm_prefetch(fetch.from, _MM_HINT_T1);
        if (ALONE_WITH_PANEL) _mm_prefetch(fetch.from + LINE, _MM_HINT_T1);
#pragma GCC unroll 12
        for (int row = 0; row < ROWS; row++) {
            int32_t pair;
            std::memcpy(&pair, x + row * inputs + i, sizeof pair);
            const __m512bh numbers = (__m512bh)_mm512_set1_epi32(pair);
            sum[row][0] = _mm512_dpbf16_ps(sum[row][0], numbers, first);
            sum[row][1] = _mm512_dpbf16_ps(sum[row][1], numbers, second);
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < ROWS; row++) {
        const __m256bh first = _mm512_cvtneps_pbh(sum[row][0]), second = _mm512_cvtneps_pbh(sum[row][1]);
        std::memcpy(out + row * outputs, &first, sizeof first);
        std::memcpy(out + row * outputs + LANES, &second, sizeof second);
    }
}

using Tile = void (*)(const Bf16 *, int64_t, const Bf16 *, const Floats (&)[2], Fetch, Bf16 *, int64_t);

template <bool ALONE_WITH_PANEL>
Tile tile_of(int64_t rows) {
    static constexpr Tile by_rows[] = {tile<1, ALONE_WITH_PANEL>,  tile<2, ALONE_WITH_PANEL>,  tile<3, ALONE_WITH_PANEL>,
                                       tile<4, ALONE_WITH_PANEL>,  tile<5, ALONE_WITH_PANEL>,  tile<6, ALONE_WITH_PANEL>,
                                       tile<7, ALONE_WITH_PANEL>,  tile<8, ALONE_WITH_PANEL>,  tile<9, ALONE_WITH_PANEL>,
                                       tile<10, ALONE_WITH_PANEL>, tile<11, ALONE_WITH_PANEL>, tile<12, ALONE_WITH_PANEL>};
    return by_rows[rows - 1];
}

// `weight`: [outputs / 32, inputs / 2, 32, 2]; `bias`: [outputs], or null.
inline void matmul(const Bf16 *x, const Bf16 *weight, const Bf16 *bias, Bf16 *out, int64_t rows, int64_t outputs,
                   int64_t inputs) {
    const int64_t panels = outputs / PANEL, tiles = (rows + MOST_ROWS - 1) / MOST_ROWS;
    // Neighbours follow in memory, but all threads should end together.
    const int64_t most = rows > 64 ? 2 : 8, chunk = std::clamp<int64_t>(panels / (4 * omp_get_max_threads()), 1, most);
#pragma omp parallel for schedule(dynamic, chunk)
    for (int64_t number = 0; number < panels; number++) {
        const Bf16 *panel = weight + number * PANEL * inputs;
        const Floats start[2] = {bias ? load(bias + number * PANEL) : Floats{},
                                 bias ? load(bias + number * PANEL + LANES) : Floats{}};
        // Several tiles fetch the next panel, a part each; one alone fetches what it needs itself before long.
        const int64_t step = 2 * LINE / tiles;
        const char *next = reinterpret_cast<const char *>(panel) + (tiles > 1 ? PANEL * inputs * 2 : AHEAD);
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t from = t * rows / tiles, count = (t + 1) * rows / tiles - from;
            const Fetch fetch = {next + t * step * inputs / 2, step};
            (tiles > 1 ? tile_of<false>(count) : tile_of<true>(count))(
                x + from * inputs, inputs, panel, start, fetch, out + from * outputs + number * PANEL, outputs);
        }
    }
}

}  // namespace albireo
#endif
