// Products of rows with packed weights, for processors with AVX-512 that multiply pairs of bf16 numbers or quads
// of bytes.
//
// The weights are read once a product, in the order of memory; while a panel of them is multiplied with all rows,
// the next one comes from memory. Threads take panels as they get done: one that the system holds up for a while
// (other processes have work too) holds up the others less.

#pragma once

#include "vectors.h"

#ifdef __AVX512VNNI__
#include <atomic>
#include <immintrin.h>
#include <omp.h>

namespace albireo {

constexpr int PANEL = 2 * LANES;      // outputs that are computed together
constexpr int MOST_ROWS = 12;         // of a tile: its sums and what they need fill the registers
constexpr int64_t WORD = 4;           // bytes of a row that are multiplied at a time
constexpr int64_t LINE = 64;          // bytes that come from memory at a time: one word of 16 outputs
constexpr int64_t AHEAD = 16 << 10;   // bytes between what a tile multiplies and what it fetches

// Kinds of products: a word of a row, and what 16 outputs weigh it with.
#ifdef __AVX512BF16__
struct Pairs {  // of bf16
    using Sum = __m512;
    static Sum add(Sum sum, __m512i word, __m512i weights) {
        return _mm512_dpbf16_ps(sum, (__m512bh)word, (__m512bh)weights);
    }
};
#endif

struct Quads {  // of unsigned bytes, with signed ones
    using Sum = __m512i;
    static Sum add(Sum sum, __m512i word, __m512i weights) { return _mm512_dpbusd_epi32(sum, word, weights); }
};

// What a tile fetches for later: `step` bytes for each word, two lines of them where it is the only one.
struct Fetch {
    const char *from;
    int64_t step;
};

// Sums of ROWS rows with one panel.
template <typename Kind, int ROWS, bool ONLY>
void tile(const char *x, int64_t row_bytes, const char *panel, Fetch fetch, typename Kind::Sum (*sums)[2]) {
    typename Kind::Sum sum[ROWS][2];
#pragma GCC unroll 12
    for (int row = 0; row < ROWS; row++) sum[row][0] = sums[row][0], sum[row][1] = sums[row][1];
    for (int64_t i = 0; i < row_bytes; i += WORD, panel += 2 * LINE, fetch.from += fetch.step) {
        const __m512i first = _mm512_loadu_si512(panel), second = _mm512_loadu_si512(panel + LINE);
        _mm_prefetch(fetch.from, _MM_HINT_T1);
        if (ONLY) _mm_prefetch(fetch.from + LINE, _MM_HINT_T1);
#pragma GCC unroll 12
        for (int row = 0; row < ROWS; row++) {
            int32_t word;
            std::memcpy(&word, x + row * row_bytes + i, sizeof word);
            sum[row][0] = Kind::add(sum[row][0], _mm512_set1_epi32(word), first);
            sum[row][1] = Kind::add(sum[row][1], _mm512_set1_epi32(word), second);
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < ROWS; row++) sums[row][0] = sum[row][0], sums[row][1] = sum[row][1];
}

template <typename Kind>
using Tile = void (*)(const char *, int64_t, const char *, Fetch, typename Kind::Sum (*)[2]);

template <typename Kind, bool ONLY>
Tile<Kind> tile_of(int64_t rows) {
    static constexpr Tile<Kind> by_rows[] = {tile<Kind, 1, ONLY>,  tile<Kind, 2, ONLY>,  tile<Kind, 3, ONLY>,
                                             tile<Kind, 4, ONLY>,  tile<Kind, 5, ONLY>,  tile<Kind, 6, ONLY>,
                                             tile<Kind, 7, ONLY>,  tile<Kind, 8, ONLY>,  tile<Kind, 9, ONLY>,
                                             tile<Kind, 10, ONLY>, tile<Kind, 11, ONLY>, tile<Kind, 12, ONLY>};
    return by_rows[rows - 1];
}

// A panel with all rows; `next`: what is fetched meanwhile.
template <typename Kind, typename Start, typename Finish>
void multiply_panel(const char *x, const char *panel, const char *next, int64_t rows, int64_t output,
                    int64_t row_bytes, Start start, Finish finish) {
    const int64_t tiles = (rows + MOST_ROWS - 1) / MOST_ROWS;
    // Several tiles fetch a part each of the next panel; an only one what it needs itself before long.
    const int64_t step = 2 * LINE / tiles;
    if (tiles == 1) next = panel + AHEAD;
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t from = t * rows / tiles, count = (t + 1) * rows / tiles - from;
        typename Kind::Sum sums[MOST_ROWS][2];
        sums[0][0] = start(output), sums[0][1] = start(output + LANES);
        for (int64_t i = 1; i < count; i++) sums[i][0] = sums[0][0], sums[i][1] = sums[0][1];
        const Tile<Kind> kernel = tiles > 1 ? tile_of<Kind, false>(count) : tile_of<Kind, true>(count);
        kernel(x + from * row_bytes, row_bytes, panel, {next + t * step * row_bytes / WORD, step}, sums);
        for (int64_t i = 0; i < count; i++) {
            finish(from + i, output, sums[i][0]);
            finish(from + i, output + LANES, sums[i][1]);
        }
    }
}

// `weight`: [outputs / 32, words of a row, 32, WORD bytes]. `start(output)`: what the sums of 16 outputs begin
// with; `finish(row, output, sums)`: takes those of a row.
template <typename Kind, typename Start, typename Finish>
void multiply(const char *x, const char *weight, int64_t rows, int64_t outputs, int64_t row_bytes, Start start,
              Finish finish) {
    if (!rows) return;
    // Neighbours follow in memory, but all threads should end together.
    const int64_t panels = outputs / PANEL, most = rows > 64 ? 2 : 8, bytes = PANEL * row_bytes;
    const int64_t size = std::clamp<int64_t>(panels / (4 * omp_get_max_threads()), 1, most);
    std::atomic<int64_t> taken = 0;
#pragma omp parallel
    for (int64_t first = taken.fetch_add(size), following; first < panels; first = following) {
        following = taken.fetch_add(size);  // now, to fetch what this thread multiplies next, and not another
        const int64_t end = std::min(panels, first + size);
        for (int64_t number = first; number < end; number++) {
            const int64_t next = number + 1 < end ? number + 1 : following < panels ? following : number;
            multiply_panel<Kind>(x, weight + number * bytes, weight + next * bytes, rows, number * PANEL, row_bytes,
                                 start, finish);
        }
    }
}

#ifdef __AVX512BF16__
// `weight`: [outputs / 32, inputs / 2, 32, 2]; `bias`: [outputs], or null. `Out`: bf16, or fp32 for sums as they are.
template <typename Out>
void matmul(const Bf16 *x, const Bf16 *weight, const Bf16 *bias, Out *out, int64_t rows, int64_t outputs,
            int64_t inputs) {
    multiply<Pairs>((const char *)x, (const char *)weight, rows, outputs, inputs * 2,
                    [=](int64_t output) { return (__m512)(bias ? load(bias + output) : Floats{}); },
                    [=](int64_t row, int64_t output, __m512 sum) { store(out + row * outputs + output, (Floats)sum); });
}
#endif

typedef uint8_t UnsignedBytes __attribute__((vector_size(16)));

// A part of a row as it is quantized.
struct AsItIs {
    static constexpr int VECTORS = 1;
    static constexpr float SCALE = 1.0f;
    static void turn(Floats *) {}
};

// Multiplied with the Hadamard matrix of its size, by the fast Walsh-Hadamard transform: an input that is far larger
// than the others spreads over all of the part, so that they keep their bits. SCALE would make it orthonormal.
template <int COUNT>
struct Rotated {
    static constexpr int VECTORS = COUNT;
    static constexpr float SCALE = COUNT == 4 ? 0.125f : COUNT == 2 ? 0.176776695f : 0.25f;
    static void turn(Floats *x) {
        const Masks lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#pragma GCC unroll 4
        for (int half = 1; half < LANES; half *= 2)
#pragma GCC unroll 4
            for (int i = 0; i < COUNT; i++) {
                const Floats other = __builtin_shuffle(x[i], lanes ^ half);
                x[i] = other + ((lanes & half) != 0 ? -x[i] : x[i]);
            }
#pragma GCC unroll 4
        for (int half = 1; half < COUNT; half *= 2)
#pragma GCC unroll 4
            for (int i = 0; i < COUNT; i++)
                if (!(i & half)) {
                    const Floats sum = x[i] + x[i + half];
                    x[i + half] = x[i] - x[i + half], x[i] = sum;
                }
    }
};

template <typename Part, typename T>
inline void load_part(const T *from, Floats *x) {
#pragma GCC unroll 4
    for (int i = 0; i < Part::VECTORS; i++) x[i] = load(from + i * LANES);
    Part::turn(x);
}

// Rows as unsigned bytes around 128, and their scale. A row with a number that is not finite becomes NaN.
template <typename Part, typename T>
void quantize(const T *x, uint8_t *bytes, float *row_scales, int64_t rows, int64_t width) {
    constexpr int64_t STEP = Part::VECTORS * LANES;
#pragma omp parallel for if (rows * width > ALONE)
    for (int64_t row = 0; row < rows; row++) {
        const T *from = x + row * width;
        Floats part[Part::VECTORS];
        Reach reach;
        for (int64_t at = 0; at < width; at += STEP) {
            load_part<Part>(from + at, part);
#pragma GCC unroll 4
            for (const Floats found : part) reach.add(found);
        }
        const float steps = reach.steps();
        row_scales[row] = reach.step() * Part::SCALE;
        for (int64_t at = 0; at < width; at += STEP) {
            load_part<Part>(from + at, part);
#pragma GCC unroll 4
            for (int i = 0; i < Part::VECTORS; i++) {
                const Masks found = __builtin_convertvector(part[i] * steps + 128.5f, Masks);
                const UnsignedBytes unsigned_ones = __builtin_convertvector(found, UnsignedBytes);
                std::memcpy(bytes + row * width + at + i * LANES, &unsigned_ones, sizeof unsigned_ones);
            }
        }
    }
}

template <typename T>
void quantize(const T *x, uint8_t *bytes, float *row_scales, int64_t rows, int64_t width, int64_t part) {
    if (part == 4 * LANES)
        quantize<Rotated<4>>(x, bytes, row_scales, rows, width);
    else if (part == 2 * LANES)
        quantize<Rotated<2>>(x, bytes, row_scales, rows, width);
    else if (part == LANES)
        quantize<Rotated<1>>(x, bytes, row_scales, rows, width);
    else
        quantize<AsItIs>(x, bytes, row_scales, rows, width);
}

// `weight`: [outputs / 32, inputs / 4, 32, 4] signed bytes; `scales`: of them, by output;
// `offsets`: -128 times the sum of the weights, by output. `bytes`, `row_scales`: space for the quantized rows. `part`:
// inputs that are rotated together, as those of the weight are: 64, 32, 16, or 0 for none.
template <typename T, typename Out>
void matmul_int8(const T *x, const int8_t *weight, const float *scales, const int32_t *offsets, const T *bias, Out *out,
                 uint8_t *bytes, float *row_scales, int64_t rows, int64_t outputs, int64_t inputs, int64_t part) {
    quantize(x, bytes, row_scales, rows, inputs, part);
    multiply<Quads>((const char *)bytes, (const char *)weight, rows, outputs, inputs,
                    [=](int64_t output) { return _mm512_loadu_si512(offsets + output); },
                    [=](int64_t row, int64_t output, __m512i sum) {
                        const Floats whole = __builtin_convertvector((Masks)sum, Floats);
                        const Floats found = whole * row_scales[row] * load(scales + output);
                        store(out + row * outputs + output, bias ? found + load(bias + output) : found);
                    });
}

}  // namespace albireo
#endif
