// Attention of rows to the blocks of the KV cache where they are.

#pragma once

#include "rows.h"

namespace albireo {

constexpr int BLOCK = 16;        // tokens of a KV block
constexpr int MOST_QUERIES = 8;  // computed together where they share a KV head: what a processor has registers for
constexpr int CHUNK = 128;       // tokens whose scores are kept at once

// What some heads of some rows ask of one KV head, all of the same blocks.
template <typename T>
struct Queries {
    const T *from[MOST_QUERIES];
    T *to[MOST_QUERIES];
    int64_t lengths[MOST_QUERIES];  // tokens that each of them sees
    int64_t longest;
};

// Scores of `count` tokens from `start` on, of which each query sees what it may.
template <typename Row, typename T, int QUERIES, int PARTS>
inline void score(const Queries<T> &queries, const Floats (&query)[QUERIES][MOST_DIM / LANES],
                  const typename Row::Number *keys, const typename Row::Number *values, const int64_t *blocks,
                  int64_t start, int count, int64_t stride, int parts, float (&scores)[QUERIES][CHUNK]) {
    Floats partial[QUERIES][BLOCK];
    for (int t = 0; t < count; t += BLOCK) {
        const int64_t number = (start + t) / BLOCK, block = blocks[number] * BLOCK * stride;
        const int64_t next = start + t + BLOCK < queries.longest ? blocks[number + 1] * BLOCK * stride : block;
        const typename Row::Number *key = keys + block;
        for (int i = 0; i < BLOCK; i++, key += stride) {
            prefetch(keys + next + i * stride, parts * LANES);
            prefetch(values + block + i * stride, parts * LANES);
            Floats dot[QUERIES] = {};
            for (int c = 0; c < (PARTS ? PARTS : parts); c++) {
                const Floats found = load(key + c * LANES);
                for (int g = 0; g < QUERIES; g++) dot[g] += found * query[g][c];
            }
            for (int g = 0; g < QUERIES; g++) partial[g][i] = dot[g];
        }
        for (int g = 0; g < QUERIES; g++)
            store(&scores[g][t], Row::scaled(sums(partial[g]), keys + block, stride, parts * LANES));
    }
    const int padded = (count + BLOCK - 1) / BLOCK * BLOCK;
    for (int g = 0; g < QUERIES; g++)
        for (int64_t t = std::max<int64_t>(0, queries.lengths[g] - start); t < padded; t++) scores[g][t] = -INFINITY;
}

// One pass over the context; the softmax comes in parts (Milakov and Gimelshein 2018, arXiv 1805.02867): what a
// part adds is weighed by the highest score so far. `keys`, `values`: of the KV head, in block 0.
template <typename Row, typename T, int QUERIES, int PARTS>
void attend(const Queries<T> &queries, const typename Row::Number *keys, const typename Row::Number *values,
            const int64_t *blocks, Heads heads) {
    const int parts = PARTS ? PARTS : heads.dim / LANES;
    const int64_t stride = heads.kv * Row::width(heads.dim);
    const float scale = 1.0f / std::sqrt(static_cast<float>(heads.dim));
    Floats query[QUERIES][MOST_DIM / LANES], sum_of[QUERIES][MOST_DIM / LANES];
    float scores[QUERIES][CHUNK], top[QUERIES], total[QUERIES];
    for (int g = 0; g < QUERIES; g++) {
        top[g] = -INFINITY, total[g] = 0;
        for (int c = 0; c < parts; c++) {
            query[g][c] = load(queries.from[g] + c * LANES) * scale;
            sum_of[g][c] = Floats{};
        }
    }
    for (int64_t start = 0; start < queries.longest; start += CHUNK) {
        const int count = std::min<int64_t>(CHUNK, queries.longest - start);
        score<Row, T, QUERIES, PARTS>(queries, query, keys, values, blocks, start, count, stride, parts, scores);
        for (int g = 0; g < QUERIES; g++) {
            Floats best = all(top[g]), weight = {};
            for (int t = 0; t < count; t += LANES) best = larger(best, load(&scores[g][t]));
            const float before = top[g];
            top[g] = highest(best);
            for (int t = 0; t < count; t += LANES) {
                const Floats number = exponential(load(&scores[g][t]) - top[g]);
                store(&scores[g][t], number);
                weight += number;
            }
            const float shrink = std::exp(before - top[g]);
            total[g] = total[g] * shrink + sum(weight);
            for (int c = 0; c < parts; c++) sum_of[g][c] *= shrink;
        }
        for (int t = 0; t < count; t += BLOCK) {
            const typename Row::Number *value = values + blocks[(start + t) / BLOCK] * BLOCK * stride;
            for (int g = 0; g < QUERIES; g++)
                store(&scores[g][t], Row::scaled(load(&scores[g][t]), value, stride, parts * LANES));
        }
        for (int c = 0; c < parts; c++) {
            Floats found[QUERIES];
            for (int g = 0; g < QUERIES; g++) found[g] = sum_of[g][c];
            for (int t = 0; t < count; t += BLOCK) {
                const typename Row::Number *value = values + blocks[(start + t) / BLOCK] * BLOCK * stride;
                const int last = std::min(t + BLOCK, count);
                for (int i = t; i < last; i++, value += stride) {
                    const Floats number = load(value + c * LANES);
                    for (int g = 0; g < QUERIES; g++) found[g] += scores[g][i] * number;
                }
            }
            for (int g = 0; g < QUERIES; g++) sum_of[g][c] = found[g];
        }
    }
    for (int g = 0; g < QUERIES; g++)
        for (int c = 0; c < parts; c++) store(queries.to[g] + c * LANES, sum_of[g][c] / total[g]);
}

template <typename Row, typename T>
using Attend = void (*)(const Queries<T> &, const typename Row::Number *, const typename Row::Number *,
                        const int64_t *, Heads);

template <typename Row, typename T, int PARTS>
Attend<Row, T> by_number(int64_t queries) {
    static constexpr Attend<Row, T> found[] = {attend<Row, T, 1, PARTS>, attend<Row, T, 2, PARTS>,
                                               attend<Row, T, 3, PARTS>, attend<Row, T, 4, PARTS>,
                                               attend<Row, T, 5, PARTS>, attend<Row, T, 6, PARTS>,
                                               attend<Row, T, 7, PARTS>, attend<Row, T, 8, PARTS>};
    return found[queries - 1];
}

// `parts`: of a head. Known to the compiler, they make it 1.2 times as fast, where there are registers for them.
template <typename Row, typename T>
Attend<Row, T> attend_of(int64_t queries, int64_t parts) {
#ifdef __AVX512F__
    if (parts == 4) return by_number<Row, T, 4>(queries);
    if (parts == 8) return by_number<Row, T, 8>(queries);
#endif
    return by_number<Row, T, 0>(queries);
}

// `columns`: blocks of each row's own table; 0 where all rows have the same one, so that several are computed
// together where few heads share a KV head.
template <typename Row, typename T>
void attention(const T *q, const typename Row::Number *keys, const typename Row::Number *values,
               const int64_t *blocks, int64_t columns, const int64_t *positions, T *out, int64_t rows, Heads heads) {
    const int64_t shared = heads.queries / heads.kv;
    const int64_t together = columns ? 1 : std::max<int64_t>(1, MOST_QUERIES / shared);
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t row = 0; row < rows; row += together)
        for (int64_t head = 0; head < heads.kv; head++) {
            const int64_t all_heads = shared * std::min(together, rows - row);
            for (int64_t first = 0; first < all_heads; first += MOST_QUERIES) {
                Queries<T> queries;
                const int64_t count = std::min<int64_t>(MOST_QUERIES, all_heads - first);
                queries.longest = 0;
                for (int64_t g = 0; g < count; g++) {
                    const int64_t own = row + (first + g) / shared;
                    const int64_t at = (own * heads.queries + head * shared + (first + g) % shared) * heads.dim;
                    queries.from[g] = q + at, queries.to[g] = out + at, queries.lengths[g] = positions[own] + 1;
                    queries.longest = std::max(queries.longest, queries.lengths[g]);
                }
                const Attend<Row, T> kernel = attend_of<Row, T>(count, heads.dim / LANES);
                const int64_t at = head * Row::width(heads.dim);
                kernel(queries, keys + at, values + at, blocks + row * columns, heads);
            }
        }
}

}  // namespace albireo
