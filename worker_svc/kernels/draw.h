// Draws of token ids from rows of logits, each by itself.
//
// worker_svc/sampling/draw.py says what the distribution is, and has the same in torch's operations. Between two
// steps caches hold little of what Python runs: sixty calls take a millisecond there, whatever they compute.

#pragma once

#include <functional>
#include <vector>

#include "vectors.h"

namespace albireo {

constexpr int64_t TILE = 128;           // adjacent numbers that are looked at together
constexpr int64_t MOST_LISTED = 2048;   // numbers of a row that are worth listing
constexpr int64_t FAILED = -1;          // the row has no largest number; as in worker_svc/sampling/failed.py
constexpr int64_t UNDONE = -2;          // too many numbers are equal: other means draw the row
constexpr double UNIT = 17592186044416.0;  // weights are counted in its inverse, 2^-44

typedef int64_t Longs __attribute__((vector_size(128)));

struct Controls {  // each of as many numbers as there are draws
    const int64_t *rows;       // of the logits
    const float *temperature;  // 0: the largest number
    const int64_t *top_k;      // 0: none, and then no other control either
    const float *top_p, *min_p;
    const double *uniforms;    // in [0, 1)
};

// Numbers as integers in the same order, -0 just below 0; its own inverse.
inline int32_t ordered(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

inline float number_of(int32_t order) {
    const int32_t bits = order ^ ((order >> 31) & 0x7fffffff);
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

struct Row {
    const float *x;
    int64_t size;
    std::vector<int32_t> maxima;  // of tiles, ordered
    float highest;

    // False where a number is NaN, or the largest is not finite.
    bool look() {
        maxima.resize((size + TILE - 1) / TILE);
        Masks strange = {};
        bool nan = false;
        for (size_t tile = 0; tile < maxima.size(); tile++) {
            const int64_t first = tile * TILE, last = std::min(size, first + TILE), whole = last - (last - first) % LANES;
            Masks most = Masks{} + INT32_MIN;
            for (int64_t i = first; i < whole; i += LANES) {
                const Floats found = load(x + i);
                const Masks bits = (Masks)found, order = bits ^ ((bits >> 31) & 0x7fffffff);
                most = order > most ? order : most;
                strange |= found != found;
            }
            int32_t greatest = INT32_MIN;
            for (int lane = 0; lane < LANES; lane++) greatest = std::max(greatest, most[lane]);
            for (int64_t i = whole; i < last; i++) greatest = std::max(greatest, ordered(x[i])), nan |= x[i] != x[i];
            maxima[tile] = greatest;
        }
        for (int lane = 0; lane < LANES; lane++) nan |= strange[lane] != 0;
        highest = number_of(*std::max_element(maxima.begin(), maxima.end()));
        return !nan && std::isfinite(highest);
    }

    // The first of the largest.
    int64_t largest() const {
        size_t tile = 0;
        while (number_of(maxima[tile]) != highest) tile++;
        int64_t id = tile * TILE;
        while (x[id] != highest) id++;
        return id;
    }

    // What 16 numbers weigh.
    Longs mass(Floats found, float temperature) const {
        const Floats weight = exponential((found - highest) / temperature) * (float)UNIT;
        return __builtin_convertvector(weight, Longs);
    }
};

inline int64_t target_of(int64_t total, double uniform) { return std::min((int64_t)(uniform * total), total - 1); }

// One of all numbers, each with its weight.
inline int64_t draw_plain(const Row &row, float temperature, double uniform) {
    const size_t tiles = row.maxima.size();
    const auto numbers = [&](int64_t i) {
        if (i + LANES <= row.size) return load(row.x + i);
        Floats found = all(-INFINITY);
        for (int lane = 0; i + lane < row.size; lane++) found[lane] = row.x[i + lane];
        return found;
    };
    std::vector<int64_t> sums(tiles);
    int64_t total = 0;
    for (size_t tile = 0; tile < tiles; tile++) {
        Longs sum = {};
        for (int64_t i = tile * TILE; i < std::min<int64_t>(row.size, (tile + 1) * TILE); i += LANES)
            sum += row.mass(numbers(i), temperature);
        for (int lane = 0; lane < LANES; lane++) sums[tile] += sum[lane];
        total += sums[tile];
    }
    int64_t target = target_of(total, uniform);
    size_t tile = 0;
    for (; target >= sums[tile]; tile++) target -= sums[tile];
    for (int64_t i = tile * TILE;; i += LANES) {
        const Longs mass = row.mass(numbers(i), temperature);
        for (int lane = 0; lane < LANES; lane++)
            if ((target -= mass[lane]) < 0) return i + lane;
    }
}

// The k-th largest number, ordered, or one that is a little less.
inline int32_t floor_of(const Row &row, int64_t k) {
    std::vector<int32_t> orders = row.maxima;  // each tile has at least one that is no smaller
    if ((int64_t)orders.size() < k) {
        orders.resize(row.size);
        for (int64_t i = 0; i < row.size; i++) orders[i] = ordered(row.x[i]);
    }
    std::nth_element(orders.begin(), orders.begin() + k - 1, orders.end(), std::greater<int32_t>());
    return orders[k - 1];
}

// The largest numbers of a row, by their ids.
struct Listed {
    int64_t count = 0;
    int64_t ids[MOST_LISTED], masses[MOST_LISTED + LANES];
    int32_t orders[MOST_LISTED];
    float values[MOST_LISTED + LANES];

    // All from `floor` on; false where these are too many.
    bool list(const Row &row, int32_t floor) {
        for (size_t tile = 0; tile < row.maxima.size(); tile++) {
            if (row.maxima[tile] < floor) continue;
            for (int64_t i = tile * TILE; i < std::min<int64_t>(row.size, (tile + 1) * TILE); i++) {
                const int32_t order = ordered(row.x[i]);
                if (order < floor) continue;
                if (count == MOST_LISTED) return false;
                ids[count] = i, values[count] = row.x[i], orders[count] = order, count++;
            }
        }
        return true;
    }

    void weigh(const Row &row, float temperature) {
        for (int64_t i = 0; i < count; i += LANES) {
            const Longs mass = row.mass(load(values + i), temperature);
            std::memcpy(masses + i, &mass, sizeof mass);
        }
    }

    int64_t cut(int32_t floor) {  // returns what is left
        int64_t total = 0;
        for (int64_t i = 0; i < count; i++) total += masses[i] = orders[i] < floor ? 0 : masses[i];
        return total;
    }

    int32_t kth(int64_t k) const {
        std::vector<int32_t> found(orders, orders + count);
        std::nth_element(found.begin(), found.begin() + k - 1, found.end(), std::greater<int32_t>());
        return found[k - 1];
    }

    // The largest number at and above which there is a `mass`.
    int32_t crossing(int64_t mass) const {
        std::vector<int64_t> places(count);
        for (int64_t i = 0; i < count; i++) places[i] = i;
        std::sort(places.begin(), places.end(), [&](int64_t a, int64_t b) { return orders[a] > orders[b]; });
        for (const int64_t place : places)
            if ((mass -= masses[place]) <= 0) return orders[place];
        return INT32_MIN;
    }
};

// One of the largest numbers that the controls keep.
inline int64_t draw_bounded(const Row &row, const Controls &controls, int64_t draw) {
    const float temperature = controls.temperature[draw], top_p = controls.top_p[draw], min_p = controls.min_p[draw];
    const int64_t k = std::min(controls.top_k[draw], row.size);
    Listed listed;
    if (!listed.list(row, floor_of(row, k))) return UNDONE;
    listed.weigh(row, temperature);
    int32_t floor = listed.kth(k);
    int64_t total = listed.cut(floor);
    if (top_p < 1) {
        const int64_t share = std::min((int64_t)std::ceil((double)top_p * total), total);
        floor = std::max(floor, listed.crossing(std::max<int64_t>(share, 1)));
    }
    if (min_p > 0) floor = std::max(floor, ordered(row.highest + temperature * std::log(min_p)));
    total = listed.cut(std::min(floor, ordered(row.highest)));
    int64_t target = target_of(total, controls.uniforms[draw]), place = 0;
    for (; target >= listed.masses[place]; place++) target -= listed.masses[place];
    return listed.ids[place];
}

// `logits`: rows of `size`, `stride` numbers apart; `ids`: [count], or FAILED, or UNDONE.
inline void draw(const float *logits, int64_t stride, int64_t size, int64_t count, const Controls &controls,
                 int64_t *ids) {
#pragma omp parallel for schedule(dynamic) if (count > 1)
    for (int64_t i = 0; i < count; i++) {
        Row row = {logits + controls.rows[i] * stride, size, {}, 0.0f};
        if (!row.look())
            ids[i] = FAILED;
        else if (controls.temperature[i] == 0)
            ids[i] = row.largest();
        else if (controls.top_k[i] == 0)
            ids[i] = draw_plain(row, controls.temperature[i], controls.uniforms[i]);
        else
            ids[i] = draw_bounded(row, controls, i);
    }
}

}  // namespace albireo
