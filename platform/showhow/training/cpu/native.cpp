// What a layer does besides matrix products, compiled: norm, attention, gate, cross-entropy, forward and backward.
//
// native.py compiles this file and calls its functions for kernels.py (training) and decoder.py (replies). Tensors come as
// addresses, their last dimension without gaps; sizes and strides count numbers, not bytes. Nothing is kept between calls.
// `Narrow` is the type of matrix products: float, or bfloat16 as its 16 bits. All arithmetic here is in float32.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
static int omp_get_num_threads() { return 1; }
static int omp_get_max_threads() { return 1; }
#endif

using Bfloat16 = std::uint16_t;
using Size = std::int64_t;
constexpr Size LANES = 16;
// GCC and Clang break these into registers of whatever width the processor has.
typedef float Lanes __attribute__((vector_size(64)));
typedef std::int32_t Integers __attribute__((vector_size(64)));
typedef std::uint32_t Bits __attribute__((vector_size(64)));
typedef std::uint16_t Halves __attribute__((vector_size(32)));

constexpr float NEVER = -3.4028235e38f;

static inline Size padded(Size count) { return (count + LANES - 1) / LANES * LANES; }
static inline Lanes all(float value) { return value - Lanes{}; }
static inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

// Sums and maxima of a row's lanes, by halves.
typedef float Eight __attribute__((vector_size(32)));
typedef float Four __attribute__((vector_size(16)));

template <typename Wide, typename Half>
static inline void halves(const Wide& x, Half& low, Half& high) {
    std::memcpy(&low, &x, sizeof low);
    std::memcpy(&high, (const char*)&x + sizeof low, sizeof high);
}

static inline float sum(Lanes x) {
    Eight a, b;
    Four c, d;
    halves(x, a, b);
    halves(a + b, c, d);
    c += d;
    return (c[0] + c[2]) + (c[1] + c[3]);
}

static inline float largest(Lanes x) {
    Eight a, b;
    Four c, d;
    halves(x, a, b);
    a = a > b ? a : b;
    halves(a, c, d);
    c = c > d ? c : d;
    return std::max(std::max(c[0], c[2]), std::max(c[1], c[3]));
}

static inline Lanes load(const float* from) {
    Lanes x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

static inline Lanes load(const Bfloat16* from) {
    Halves x;
    std::memcpy(&x, from, sizeof x);
    return (Lanes)(__builtin_convertvector(x, Bits) << 16);
}

static inline Eight load_eight(const float* from) {
    Eight x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

static inline void store(float* to, Lanes x) { std::memcpy(to, &x, sizeof x); }

static inline void store(Bfloat16* to, Lanes x) {
    Bits bits = (Bits)x;
    Halves halves = __builtin_convertvector((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, Halves);  // to nearest, even
    std::memcpy(to, &halves, sizeof halves);
}

// Of a row's last numbers there may be fewer than lanes.
template <typename Number>
static inline Lanes load(const Number* from, Size left) {
    if (left >= LANES) return load(from);
    Number some[LANES] = {};
    std::memcpy(some, from, left * sizeof(Number));
    return load(some);
}

template <typename Number>
static inline void store(Number* to, Lanes x, Size left) {
    if (left >= LANES) return store(to, x);
    Number some[LANES];
    store(some, x);
    std::memcpy(to, some, left * sizeof(Number));
}

// The exponential of numbers up to 88, to 2 units in the last place: 2^n times the polynomial of Cephes' expf.
static inline Lanes exponential(Lanes x) {
    x = larger(x, all(-87.3f));
    Lanes shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer part stands in the lowest bits
    Lanes n = shifted - 12582912.0f;
    Lanes r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (Lanes)((Integers)p + ((Integers)shifted << 23));
}

static inline Lanes sigmoid(Lanes x) {
    Lanes bounded = x < -80.0f ? all(-80.0f) : x;
    return 1.0f / (1.0f + exponential(-bounded));
}

// --- matrix products of one head: c (m x n) = a (m x k) times b (k x n); rows of b and c are whole lanes -------------

// `a` is row-major with `a_step` from row to row, or the transposed of such a matrix.
template <bool TRANSPOSED, Size ROWS, Size WIDE>
static inline void tile(Size k, const float* a, Size a_step, const float* b, Size b_row, float* c, Size c_row) {
    Lanes sums[ROWS][WIDE] = {};
    for (Size i = 0; i < k; ++i) {
        Lanes row[WIDE];
        for (Size w = 0; w < WIDE; ++w) row[w] = load(b + i * b_row + w * LANES);
        for (Size r = 0; r < ROWS; ++r) {
            float number = TRANSPOSED ? a[i * a_step + r] : a[r * a_step + i];
            for (Size w = 0; w < WIDE; ++w) sums[r][w] += number * row[w];
        }
    }
    for (Size r = 0; r < ROWS; ++r)
        for (Size w = 0; w < WIDE; ++w) store(c + r * c_row + w * LANES, sums[r][w]);
}

template <bool TRANSPOSED, Size ROWS>
static inline void stripe(
    Size n, Size k, const float* a, Size a_step, const float* b, Size b_row, float* c, Size c_row
) {
    Size j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES) tile<TRANSPOSED, ROWS, 2>(k, a, a_step, b + j, b_row, c + j, c_row);
    if (j < n) tile<TRANSPOSED, ROWS, 1>(k, a, a_step, b + j, b_row, c + j, c_row);
}

constexpr Size TOGETHER = 8;  // rows of c at a time, at most

template <bool TRANSPOSED>
static inline void rows_product(
    Size m, Size n, Size k, const float* a, Size a_step, const float* b, Size b_row, float* c, Size c_row
) {
    Size a_row = TRANSPOSED ? 1 : a_step;
    if (m == TOGETHER) return stripe<TRANSPOSED, TOGETHER>(n, k, a, a_step, b, b_row, c, c_row);
    if (m >= 4) {
        stripe<TRANSPOSED, 4>(n, k, a, a_step, b, b_row, c, c_row);
        return rows_product<TRANSPOSED>(m - 4, n, k, a + 4 * a_row, a_step, b, b_row, c + 4 * c_row, c_row);
    }
    for (Size r = 0; r < m; ++r) stripe<TRANSPOSED, 1>(n, k, a + r * a_row, a_step, b, b_row, c + r * c_row, c_row);
}

// --- attention -------------------------------------------------------------------------------------------------------

struct Looking {  // strides count numbers
    Size batch, heads, queries, keys, width;
    Size first;         // tokens before it are looked at and ask nothing: queries begin there
    Size is_causal;     // query i sees the keys up to first + i
    Size query_stride, key_stride;  // from one token to the next
    float scale;        // of the scores
    const float* turns;  // of each token, see turn; or null
    Size turns_batch;   // from one row of the batch to the next, 0 if all share them
    const float* added;  // to the scores, or null
    Size added_batch, added_head;

    Size seen(Size query) const { return is_causal ? std::min(keys, first + query + 1) : keys; }
    // The first of the queries from which `key` is seen.
    Size seers(Size key) const { return is_causal ? std::max<Size>(0, key - first) : 0; }
    const float* turns_of(Size row) const { return turns ? turns + row * turns_batch : nullptr; }
};

// Rotary positions: number i and number i + width / 2 of a head are one complex number. turns: of a token, the cosines
// of all its numbers, then the sines, those of the first half negated. `way` is 1, or -1 for the way back.
static inline void turn(float* __restrict row, Size width, const float* __restrict turns, float way) {
    Size half = width / 2, i = 0;
    const float *cosines = turns, *sines = turns + width;
    for (; i + 8 <= half; i += 8) {
        Eight low = load_eight(row + i), high = load_eight(row + half + i);
        Eight to_low = low * load_eight(cosines + i) + high * load_eight(sines + i) * way;
        Eight to_high = high * load_eight(cosines + half + i) + low * load_eight(sines + half + i) * way;
        std::memcpy(row + i, &to_low, sizeof to_low);
        std::memcpy(row + half + i, &to_high, sizeof to_high);
    }
    for (; i < half; ++i) {
        float low = row[i], high = row[i + half];
        row[i] = low * cosines[i] + high * sines[i] * way;
        row[i + half] = high * cosines[half + i] + low * sines[half + i] * way;
    }
}

// Read tokens x width of one head, rows padded with zeros to whole lanes.
template <typename Narrow>
static void read_head(
    const Narrow* from, Size stride, Size tokens, Size width, const float* turns, float scale, float* to
) {
    Size row = padded(width);
    for (Size t = 0; t < tokens; ++t, to += row) {
        for (Size i = 0; i < width; i += LANES) store(to + i, load(from + t * stride + i, width - i) * scale);
        if (turns) turn(to, width, turns + 2 * t * width, 1.0f);
    }
}

template <typename Narrow>
static void write_head(
    float* from, Size stride, Size tokens, Size width, const float* turns, float scale, Narrow* to
) {
    Size row = padded(width);
    for (Size t = 0; t < tokens; ++t, from += row) {
        if (turns) turn(from, width, turns + 2 * t * width, -1.0f);
        for (Size i = 0; i < width; i += LANES) store(to + t * stride + i, load(from + i) * scale, width - i);
    }
}

static void transpose(const float* from, Size tokens, Size width, float* to) {
    Size row = padded(width), column = padded(tokens);
    for (Size t = 0; t < tokens; ++t)
        for (Size i = 0; i < width; ++i) to[i * column + t] = from[t * row + i];
}

// Turn a row of scores into the exponentials of their distances to the largest, and return the sum. Keys from `seen` on
// get none.
static inline float exponentials(float* row, Size seen, const float* added) {
    const Integers places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Lanes most = all(NEVER);
    for (Size j = 0; j < seen; j += LANES) {
        Lanes x = load(row + j);
        if (added) x += load(added + j, seen - j);
        if (seen - j < LANES) x = places < (int)(seen - j) ? x : all(NEVER);
        store(row + j, x);
        most = larger(most, x);
    }
    Lanes highest = all(largest(most)), total = {};
    for (Size j = 0; j < seen; j += LANES) {
        Lanes x = exponential(load(row + j) - highest);
        if (seen - j < LANES) x = places < (int)(seen - j) ? x : Lanes{};
        store(row + j, x);
        total += x;
    }
    return sum(total);
}

static inline void softmax(float* row, Size seen, Size end, const float* added) {
    Lanes by = all(1.0f / exponentials(row, seen, added));
    for (Size j = 0; j < seen; j += LANES) store(row + j, load(row + j) * by);
    for (Size j = padded(seen); j < end; j += LANES) store(row + j, Lanes{});
}

template <typename Narrow>
static void attention(
    const Looking& how, const Narrow* queries, const Narrow* keys, const Narrow* values, float* shares, Narrow* result
) {
    Size width = how.width, row = padded(width), keys_row = padded(how.keys), tokens = how.first + how.queries;
#pragma omp parallel
    {
        std::vector<float> q(how.queries * row), k(how.keys * row), v(how.keys * row), turned(width * keys_row, 0.0f);
        std::vector<float> out(how.queries * row);
#pragma omp for collapse(2)
        for (Size b = 0; b < how.batch; ++b)
            for (Size h = 0; h < how.heads; ++h) {
                const float* turns = how.turns_of(b);
                const float* at_first = turns ? turns + 2 * how.first * width : nullptr;
                Size q_at = (b * tokens + how.first) * how.query_stride + h * width;
                Size k_at = b * how.keys * how.key_stride + h * width;
                read_head(queries + q_at, how.query_stride, how.queries, width, at_first, how.scale, q.data());
                read_head(keys + k_at, how.key_stride, how.keys, width, turns, 1.0f, k.data());
                read_head(values + k_at, how.key_stride, how.keys, width, nullptr, 1.0f, v.data());
                transpose(k.data(), how.keys, width, turned.data());
                float* of_head = shares + (b * how.heads + h) * how.queries * keys_row;
                const float* added = how.added ? how.added + b * how.added_batch + h * how.added_head : nullptr;
                for (Size i = 0; i < how.queries; i += TOGETHER) {
                    Size some = std::min(TOGETHER, how.queries - i), seen = how.seen(i + some - 1);
                    float* scores = of_head + i * keys_row;
                    rows_product<false>(some, padded(seen), width, q.data() + i * row, row, turned.data(), keys_row,
                                        scores, keys_row);
                    for (Size r = 0; r < some; ++r)
                        softmax(scores + r * keys_row, how.seen(i + r), keys_row,
                                added ? added + (i + r) * how.keys : nullptr);
                    rows_product<false>(some, row, seen, scores, keys_row, v.data(), row, out.data() + i * row, row);
                }
                Size stride = how.heads * width;
                write_head(out.data(), stride, how.queries, width, nullptr, 1.0f,
                           result + b * how.queries * stride + h * width);
            }
    }
}

template <typename Narrow>
static void attention_backward_head(
    const Looking& how, Size b, Size h, const Narrow* gradient, const Narrow* queries, const Narrow* keys,
    const Narrow* values, const float* shares, Narrow* to_queries, Narrow* to_keys, Narrow* to_values, float* to_bias,
    std::vector<float>& scratch
) {
    Size width = how.width, row = padded(width), keys_row = padded(how.keys), tokens = how.first + how.queries;
    Size q_size = how.queries * row, k_size = how.keys * row, turned_size = width * keys_row;
    scratch.resize(3 * q_size + 4 * k_size + turned_size + how.queries * keys_row);
    float *q = scratch.data(), *g = q + q_size, *dq = g + q_size, *k = dq + q_size, *v = k + k_size, *dk = v + k_size;
    float *dv = dk + k_size, *turned = dv + k_size, *to_scores = turned + turned_size;
    const float* turns = how.turns_of(b);
    const float* at_first = turns ? turns + 2 * how.first * width : nullptr;
    Size q_at = (b * tokens + how.first) * how.query_stride + h * width;
    Size k_at = b * how.keys * how.key_stride + h * width, stride = how.heads * width;
    read_head(queries + q_at, how.query_stride, how.queries, width, at_first, how.scale, q);
    read_head(keys + k_at, how.key_stride, how.keys, width, turns, 1.0f, k);
    read_head(values + k_at, how.key_stride, how.keys, width, nullptr, 1.0f, v);
    read_head(gradient + b * how.queries * stride + h * width, stride, how.queries, width, nullptr, 1.0f, g);
    std::fill(turned, turned + turned_size, 0.0f);
    transpose(v, how.keys, width, turned);
    const float* of_head = shares + (b * how.heads + h) * how.queries * keys_row;
    for (Size i = 0; i < how.queries; i += TOGETHER) {
        Size some = std::min(TOGETHER, how.queries - i), seen = how.seen(i + some - 1), end = padded(seen);
        float* scores = to_scores + i * keys_row;
        rows_product<false>(some, end, width, g + i * row, row, turned, keys_row, scores, keys_row);
        for (Size r = 0; r < some; ++r) {
            float* to = scores + r * keys_row;
            const float* share = of_head + (i + r) * keys_row;
            Lanes along = {};
            for (Size j = 0; j < end; j += LANES) along += load(to + j) * load(share + j);
            Lanes mean = all(sum(along));
            for (Size j = 0; j < end; j += LANES) store(to + j, (load(to + j) - mean) * load(share + j));
            if (to_bias) {
                float* bias = to_bias + (h * how.queries + i + r) * how.keys;
                for (Size j = 0; j < seen; j += LANES)
                    store(bias + j, load(bias + j, seen - j) + load(to + j), seen - j);
            }
        }
        rows_product<false>(some, row, seen, scores, keys_row, k, row, dq + i * row, row);
    }
    for (Size j = 0; j < how.keys; j += TOGETHER) {
        Size some = std::min(TOGETHER, how.keys - j), from = how.seers(j), count = how.queries - from;
        // Queries of the same rows of eight have shares of 0 here, those of earlier ones were never written.
        const float *scores = to_scores + from * keys_row + j, *share = of_head + from * keys_row + j;
        rows_product<true>(some, row, count, scores, keys_row, q + from * row, row, dk + j * row, row);
        rows_product<true>(some, row, count, share, keys_row, g + from * row, row, dv + j * row, row);
    }
    write_head(dq, how.query_stride, how.queries, width, at_first, how.scale, to_queries + q_at);
    write_head(dk, how.key_stride, how.keys, width, turns, 1.0f, to_keys + k_at);
    write_head(dv, how.key_stride, how.keys, width, nullptr, 1.0f, to_values + k_at);
    for (Size t = 0; t < how.first; ++t)
        std::fill_n(to_queries + (b * tokens + t) * how.query_stride + h * width, width, Narrow{});
}

template <typename Narrow>
static void attention_backward(
    const Looking& how, const Narrow* gradient, const Narrow* queries, const Narrow* keys, const Narrow* values,
    const float* shares, Narrow* to_queries, Narrow* to_keys, Narrow* to_values, float* to_bias
) {
    // The bias is shared by the batch, so a head's rows are taken one after another.
    Size apart = to_bias ? 1 : how.batch, together = how.batch / apart;
#pragma omp parallel
    {
        std::vector<float> scratch;
#pragma omp for collapse(2)
        for (Size part = 0; part < apart; ++part)
            for (Size h = 0; h < how.heads; ++h)
                for (Size b = part * together; b < (part + 1) * together; ++b)
                    attention_backward_head(how, b, h, gradient, queries, keys, values, shares, to_queries, to_keys,
                                            to_values, to_bias, scratch);
    }
}

// --- attention of what is written, token by token ----------------------------------------------------------------------
// Of each row and head, values lie as places x width. Keys lie in blocks of as many places as there are lanes, each block
// width x lanes: the scores of its keys are worked out at once, and a new key touches one block.

template <typename Narrow>
static void remember(
    Size batch, Size heads, Size width, Size places, Size start, Size tokens, const Narrow* keys, const Narrow* values,
    Size stride, const float* turns, Narrow* all_keys, Narrow* all_values
) {
#pragma omp parallel
    {
        std::vector<float> one(padded(width));
        std::vector<Narrow> narrow(padded(width));
#pragma omp for collapse(2)
        for (Size b = 0; b < batch; ++b)
            for (Size h = 0; h < heads; ++h)
                for (Size t = 0; t < tokens; ++t) {
                    Size from = (b * tokens + t) * stride + h * width, head = (b * heads + h) * width * places;
                    std::memcpy(all_values + head + (start + t) * width, values + from, width * sizeof(Narrow));
                    read_head(keys + from, stride, 1, width, turns ? turns + 2 * t * width : nullptr, 1.0f, one.data());
                    for (Size i = 0; i < width; i += LANES) store(narrow.data() + i, load(one.data() + i));
                    Size place = start + t;
                    Narrow* to = all_keys + head + place / LANES * LANES * width + place % LANES;
                    for (Size i = 0; i < width; ++i) to[i * LANES] = narrow[i];
                }
    }
}

struct Reading {  // sizes and strides count numbers
    Size batch, heads, key_heads, width, places;
    Size start, tokens;  // places of the keys that the first of `tokens` queries a row sees; the next sees one more
    Size stride;         // from one query to the next
    float scale;         // of the scores
    const float* turns;  // of each query, see turn; or null
    const Size* begins;  // of each row: the place of its first key; or null
    const Size* ends;    // of each row: how many places it sees at most; or null
    const float* added;  // to the scores of a head's places, or null
    Size added_head;
};

template <typename Narrow>
static void read_one(const Reading& how, const float* query, const Narrow* keys, const Narrow* values, Size begin,
                     Size end, const float* added, float* scores, float* out) {
    Size first = begin / LANES * LANES, row = padded(how.width);
    for (Size j = first; j < end; j += LANES) {
        const Narrow* block = keys + j * how.width;
        Lanes parts[4] = {};  // one sum would wait for itself
        Size i = 0;
        for (; i + 4 <= how.width; i += 4)
            for (Size p = 0; p < 4; ++p) parts[p] += load(block + (i + p) * LANES) * query[i + p];
        for (; i < how.width; ++i) parts[0] += load(block + i * LANES) * query[i];
        store(scores + j, (parts[0] + parts[1]) + (parts[2] + parts[3]));
    }
    for (Size j = first; j < begin; ++j) scores[j] = NEVER;
    Lanes by = all(1.0f / exponentials(scores + first, end - first, added ? added + first : nullptr));
    for (Size i = 0; i < row; i += LANES) {
        Lanes parts[4] = {};
        Size j = begin, left = how.width - i;
        for (; j + 4 <= end; j += 4)
            for (Size p = 0; p < 4; ++p) parts[p] += load(values + (j + p) * how.width + i, left) * scores[j + p];
        for (; j < end; ++j) parts[0] += load(values + j * how.width + i, left) * scores[j];
        store(out + i, ((parts[0] + parts[1]) + (parts[2] + parts[3])) * by);
    }
}

template <typename Narrow>
static void read(const Reading& how, const Narrow* queries, const Narrow* keys, const Narrow* values, Narrow* result) {
    Size width = how.width, row = padded(width), together = how.heads / how.key_heads;
#pragma omp parallel
    {
        std::vector<float> query(row), scores(how.places + LANES), out(row);
#pragma omp for collapse(2)
        for (Size b = 0; b < how.batch; ++b)
            for (Size h = 0; h < how.heads; ++h)
                for (Size t = 0; t < how.tokens; ++t) {
                    Size head = (b * how.key_heads + h / together) * width * how.places, at = b * how.tokens + t;
                    Size begin = how.begins ? how.begins[b] : 0, end = how.start + t;
                    if (how.ends) end = std::min(end, how.ends[b]);
                    begin = std::min(begin, end - 1);  // a token of the padding sees itself
                    // Each head's keys and values are a short stretch of memory, and the next one's is elsewhere.
                    Size next = head + width * how.places;
                    for (Size i = begin * width; i < end * width; i += 64 / sizeof(Narrow)) {
                        __builtin_prefetch(keys + next + i);
                        __builtin_prefetch(values + next + i);
                    }
                    const float* turns = how.turns ? how.turns + 2 * t * width : nullptr;
                    const Narrow* from = queries + at * how.stride + h * width;
                    read_head(from, how.stride, 1, width, turns, how.scale, query.data());
                    read_one(how, query.data(), keys + head, values + head, begin, end,
                             how.added ? how.added + h * how.added_head : nullptr, scores.data(), out.data());
                    write_head(out.data(), 0, 1, width, nullptr, 1.0f, result + (at * how.heads + h) * width);
                }
    }
}

// --- norm, gate, cross-entropy, sums ---------------------------------------------------------------------------------

template <typename Narrow>
static void norm(
    Size rows, Size size, const float* hidden, const float* weight, float epsilon, Narrow* result, float* scales
) {
#pragma omp parallel for
    for (Size t = 0; t < rows; ++t) {
        const float* row = hidden + t * size;
        Lanes squares = {};
        for (Size i = 0; i < size; i += LANES) {
            Lanes x = load(row + i, size - i);
            squares += x * x;
        }
        float scale = 1.0f / __builtin_sqrtf(sum(squares) / size + epsilon);
        scales[t] = scale;
        for (Size i = 0; i < size; i += LANES)
            store(result + t * size + i, load(row + i, size - i) * scale * load(weight + i, size - i), size - i);
    }
}

template <typename Narrow>
static void norm_backward(
    Size batch, Size length, Size size, Size first, const Narrow* gradient, const float* hidden, const float* weight,
    const float* scales, const float* passed, float* to_hidden, float* to_weight
) {
    Size rows = batch * length, threads = omp_get_max_threads(), row = padded(size);
    std::vector<float> parts(threads * row, 0.0f);  // of to_weight: added in order, so that a result can be had again
#pragma omp parallel
    {
        Size mine = omp_get_thread_num(), all_of_us = omp_get_num_threads();
        float* part = parts.data() + mine * row;
        for (Size t = rows * mine / all_of_us; t < rows * (mine + 1) / all_of_us; ++t) {
            const float* x = hidden + t * size;
            const Narrow* g = gradient + t * size;
            Lanes along = {}, scale = all(scales[t]);
            for (Size i = 0; i < size; i += LANES) {
                Lanes one = load(g + i, size - i), unweighted = load(x + i, size - i) * scale;
                along += one * load(weight + i, size - i) * unweighted;
                store(part + i, load(part + i) + one * unweighted);
            }
            Lanes mean = all(sum(along) / size);
            Size token = t % length - first;
            Size of_passed = t / length * (length - first) + token;
            const float* also = passed && token >= 0 ? passed + of_passed * size : nullptr;
            for (Size i = 0; i < size; i += LANES) {
                Lanes unweighted = load(x + i, size - i) * scale;
                Lanes to = (load(g + i, size - i) * load(weight + i, size - i) - unweighted * mean) * scale;
                store(to_hidden + t * size + i, also ? to + load(also + i, size - i) : to, size - i);
            }
        }
    }
    for (Size i = 0; i < size; ++i) {
        to_weight[i] = 0;
        for (Size part = 0; part < threads; ++part) to_weight[i] += parts[part * row + i];
    }
}

template <typename Narrow>
static void add(Size count, const float* hidden, const Narrow* more, float* result) {
#pragma omp parallel for
    for (Size i = 0; i < count; i += LANES)
        store(result + i, load(hidden + i, count - i) + load(more + i, count - i), count - i);
}

// Add the rows of equal tokens.
template <typename Narrow>
static void gathered(Size rows, Size size, const Narrow* gradient, const Size* tokens, float* result) {
    for (Size t = 0; t < rows; ++t) {
        float* to = result + tokens[t] * size;
        for (Size i = 0; i < size; i += LANES)
            store(to + i, load(to + i, size - i) + load(gradient + t * size + i, size - i), size - i);
    }
}

template <typename Narrow>
static void gate(Size rows, Size size, const Narrow* both, Narrow* result) {
#pragma omp parallel for
    for (Size t = 0; t < rows; ++t)
        for (Size i = 0; i < size; i += LANES) {
            const Narrow* at = both + 2 * t * size + i;
            Lanes opening = load(at, size - i);
            store(result + t * size + i, opening * sigmoid(opening) * load(at + size, size - i), size - i);
        }
}

template <typename Narrow>
static void gate_backward(Size rows, Size size, const Narrow* gradient, const Narrow* both, Narrow* to_both) {
#pragma omp parallel for
    for (Size t = 0; t < rows; ++t)
        for (Size i = 0; i < size; i += LANES) {
            Size at = 2 * t * size + i, left = size - i;
            Lanes opening = load(both + at, left), up = load(both + at + size, left);
            Lanes g = load(gradient + t * size + i, left), share = sigmoid(opening);
            store(to_both + at, g * up * share * (1.0f + opening * (1.0f - share)), left);
            store(to_both + at + size, g * opening * share, left);
        }
}

template <typename Narrow>
static float log_of_sum(const Narrow* row, Size size) {
    Lanes most = all(NEVER), total = {};
    for (Size i = 0; i < size; i += LANES)
        for (Size lane = 0; lane < std::min(LANES, size - i); ++lane)
            most[0] = std::max(most[0], load(row + i, size - i)[lane]);
    Lanes highest = all(most[0]);
    for (Size i = 0; i < size; i += LANES) {
        Lanes x = exponential(load(row + i, size - i) - highest);
        for (Size lane = size - i; lane < LANES; ++lane) x[lane] = 0;
        total += x;
    }
    return most[0] + __builtin_logf(sum(total));
}

template <typename Narrow>
static void entropy(
    Size rows, Size size, const Narrow* logits, const Size* labels, Size ignored, float* losses, float* logs
) {
#pragma omp parallel for
    for (Size t = 0; t < rows; ++t) {
        losses[t] = logs[t] = 0;
        if (labels[t] == ignored) continue;
        logs[t] = log_of_sum(logits + t * size, size);
        losses[t] = logs[t] - load(logits + t * size + labels[t], 1)[0];
    }
}

template <typename Narrow>
static void entropy_backward(
    Size rows, Size size, const Narrow* logits, const Size* labels, Size ignored, const float* logs, float scale,
    Narrow* to_logits
) {
#pragma omp parallel for
    for (Size t = 0; t < rows; ++t)
        for (Size i = 0; i < size; i += LANES) {
            Lanes x = {};
            if (labels[t] != ignored) {
                x = exponential(load(logits + t * size + i, size - i) - logs[t]) * scale;
                if (labels[t] >= i && labels[t] < i + LANES) x[labels[t] - i] -= scale;
            }
            store(to_logits + t * size + i, x, size - i);
        }
}

// --- the names that native.py calls ----------------------------------------------------------------------------------

#define FOR_TYPE(Narrow, suffix)                                                                                       \
    void norm_##suffix(Size rows, Size size, const float* hidden, const float* weight, float epsilon, Narrow* result,  \
                       float* scales) {                                                                                \
        norm(rows, size, hidden, weight, epsilon, result, scales);                                                     \
    }                                                                                                                  \
    void norm_backward_##suffix(Size batch, Size length, Size size, Size first, const Narrow* gradient,                \
                                const float* hidden, const float* weight, const float* scales, const float* passed,    \
                                float* to_hidden, float* to_weight) {                                                  \
        norm_backward(batch, length, size, first, gradient, hidden, weight, scales, passed, to_hidden, to_weight);     \
    }                                                                                                                  \
    void add_##suffix(Size count, const float* hidden, const Narrow* more, float* result) {                            \
        add(count, hidden, more, result);                                                                              \
    }                                                                                                                  \
    void gathered_##suffix(Size rows, Size size, const Narrow* gradient, const Size* tokens, float* result) {          \
        gathered(rows, size, gradient, tokens, result);                                                                \
    }                                                                                                                  \
    void attention_##suffix(const Looking* how, const Narrow* queries, const Narrow* keys, const Narrow* values,       \
                            float* shares, Narrow* result) {                                                           \
        attention(*how, queries, keys, values, shares, result);                                                        \
    }                                                                                                                  \
    void attention_backward_##suffix(const Looking* how, const Narrow* gradient, const Narrow* queries,                \
                                     const Narrow* keys, const Narrow* values, const float* shares, Narrow* to_queries,\
                                     Narrow* to_keys, Narrow* to_values, float* to_bias) {                             \
        attention_backward(*how, gradient, queries, keys, values, shares, to_queries, to_keys, to_values, to_bias);    \
    }                                                                                                                  \
    void remember_##suffix(Size batch, Size heads, Size width, Size places, Size start, Size tokens,                   \
                           const Narrow* keys, const Narrow* values, Size stride, const float* turns,                  \
                           Narrow* all_keys, Narrow* all_values) {                                                     \
        remember(batch, heads, width, places, start, tokens, keys, values, stride, turns, all_keys, all_values);       \
    }                                                                                                                  \
    void read_##suffix(const Reading* how, const Narrow* queries, const Narrow* keys, const Narrow* values,            \
                       Narrow* result) {                                                                               \
        read(*how, queries, keys, values, result);                                                                     \
    }                                                                                                                  \
    void gate_##suffix(Size rows, Size size, const Narrow* both, Narrow* result) { gate(rows, size, both, result); }   \
    void gate_backward_##suffix(Size rows, Size size, const Narrow* gradient, const Narrow* both, Narrow* to_both) {   \
        gate_backward(rows, size, gradient, both, to_both);                                                            \
    }                                                                                                                  \
    void entropy_##suffix(Size rows, Size size, const Narrow* logits, const Size* labels, Size ignored, float* losses, \
                          float* logs) {                                                                               \
        entropy(rows, size, logits, labels, ignored, losses, logs);                                                    \
    }                                                                                                                  \
    void entropy_backward_##suffix(Size rows, Size size, const Narrow* logits, const Size* labels, Size ignored,       \
                                   const float* logs, float scale, Narrow* to_logits) {                                \
        entropy_backward(rows, size, logits, labels, ignored, logs, scale, to_logits);                                 \
    }

extern "C" {
FOR_TYPE(float, float32)
FOR_TYPE(Bfloat16, bfloat16)
}
