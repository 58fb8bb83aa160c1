// What networks do to tensors, on a GPU: the fused bodies of `dense.rs`, `segments.rs`,
// `lstm.rs` and of Adam, one function each. `real` is defined before this text: float or
// double. All arguments are 8 bytes wide. Every sum has one order, whatever the GPU is
// doing, so equal inputs give equal bits.

// A thread a piece of work.
#define EACH(index, count)                                                             \
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;                      \
    if (index < (count))

typedef long long size;

// max(x, 0); a NaN stays one, so that divergence shows in the loss.
static __device__ real rectify(real x) { return x <= real(0) ? real(0) : x; }
static __device__ real logistic(real x) { return real(1) / (real(1) + exp(-x)); }

// Dense layers and the gradient penalty.

extern "C" __global__ void bias_relu(real *out, size count, const real *bias, size width) {
    EACH(i, count) { out[i] = rectify(out[i] + bias[i % unsigned(width)]); }
}

// Three blocks of `block` numbers: real, generated, and between.
extern "C" __global__ void interpolate_relu(real *out, size block, const real *weights,
                                            const real *bias, size width) {
    EACH(i, block) {
        real of_real = out[i], of_fake = out[block + i], shift = bias[i % unsigned(width)];
        real weight = weights[i / unsigned(width)];
        out[2 * block + i] = rectify(of_real + weight * (of_fake - of_real) + shift);
        out[i] = rectify(of_real + shift);
        out[block + i] = rectify(of_fake + shift);
    }
}

extern "C" __global__ void take_where_positive(real *out, size count, const real *source) {
    EACH(i, count) { out[i] = out[i] > real(0) ? source[i] : real(0); }
}

extern "C" __global__ void mask(real *out, size count, const real *activation) {
    EACH(i, count) { out[i] = activation[i] > real(0) ? out[i] : real(0); }
}

extern "C" __global__ void multiply(real *out, size count, const real *factors) {
    EACH(i, count) { out[i] *= factors[i]; }
}

extern "C" __global__ void average(real *out, size count, const real *source, double kept) {
    EACH(i, count) { out[i] = real(kept) * out[i] + real(1 - kept) * source[i]; }
}

extern "C" __global__ void masked_outer(real *out, size count, const real *activation,
                                        const real *weight, size width, double scale) {
    EACH(i, count) {
        out[i] = activation[i] > real(0) ? real(scale) * weight[i % unsigned(width)] : real(0);
    }
}

// Sums over a block of threads, a power of two of them; all get the sum.
static __device__ real block_sum(real sum) {
    __shared__ real sums[256];
    sums[threadIdx.x] = sum;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[0];
}

// A block a row.
extern "C" __global__ void gradient_norms(real *out, const real *gradient, size width,
                                          size of_sample, size counted, double floor) {
    const real *row = gradient + blockIdx.x * width;
    real sum = 0;
    for (unsigned column = threadIdx.x; column < width; column += blockDim.x)
        if (column % unsigned(of_sample) < counted) sum += row[column] * row[column];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sqrt(sum + real(floor));
}

extern "C" __global__ void scale_rows(real *out, size count, const real *factors, size width,
                                      size of_sample, size counted) {
    EACH(i, count) {
        unsigned column = i % unsigned(width) % unsigned(of_sample);
        out[i] = column < counted ? out[i] * factors[i / unsigned(width)] : real(0);
    }
}

// Blocks of 8 columns and 32 bands of the rows of one of `parts`; a row of `out` a part.
extern "C" __global__ void column_sums(real *out, const real *rows, size width, size count,
                                       size parts) {
    __shared__ real sums[256];
    const unsigned across = (unsigned(width) + 7) / 8, part = blockIdx.x / across;
    const unsigned band = threadIdx.x / 8;
    const unsigned column = blockIdx.x % across * 8 + threadIdx.x % 8;
    const unsigned first = part * count / parts, end = (part + 1) * count / parts;
    real sum = 0;
    if (column < width)
        for (unsigned row = first + band; row < end; row += 32) sum += rows[row * width + column];
    sums[threadIdx.x] = sum;
    for (unsigned half = 128; half >= 8; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (band == 0 && column < width) out[part * width + column] = sums[threadIdx.x];
}

extern "C" __global__ void add_repeated(real *out, size count, const real *block, size length) {
    EACH(i, count) { out[i] += block[i % unsigned(length)]; }
}

// Segments: `lanes` neighbouring threads (a power of two, at most 32) share one of a row.
// `segments` holds first column, columns and activation (0 logistic, 1 tanh, 2 softmax) of
// each. Threads without work come along, for the exchanges between lanes.

struct Lane {
    unsigned lane, first, dim, activation;
};

static __device__ Lane lane_of(unsigned index, const unsigned *segments, unsigned each,
                               unsigned dim, unsigned rows, unsigned lanes) {
    unsigned work = index / lanes, row = work / each;
    const unsigned *segment = segments + 3 * (work % each);
    if (row >= rows) return Lane{index % lanes, 0, 0, 0};
    return Lane{index % lanes, row * dim + segment[0], segment[1], segment[2]};
}

static __device__ real lanes_sum(real x, unsigned lanes) {
    for (unsigned other = lanes / 2; other > 0; other /= 2)
        x += __shfl_xor_sync(0xffffffff, x, other);
    return x;
}

static __device__ real lanes_most(real x, unsigned lanes) {
    for (unsigned other = lanes / 2; other > 0; other /= 2)
        x = fmax(x, __shfl_xor_sync(0xffffffff, x, other));
    return x;
}

#define LANE                                                                           \
    Lane at = lane_of(blockIdx.x * blockDim.x + threadIdx.x, segments, each, dim, rows, lanes)
#define EACH_OF_LANE(i) for (unsigned i = at.first + at.lane; i < at.first + at.dim; i += lanes)

extern "C" __global__ void activate(real *out, const unsigned *segments, size each, size dim,
                                    size rows, size lanes) {
    LANE;
    real most = at.dim > 0 ? out[at.first] : real(0), sum = 0;
    EACH_OF_LANE(i) { most = fmax(most, out[i]); }
    most = lanes_most(most, lanes);
    EACH_OF_LANE(i) {
        real x = out[i];
        out[i] = at.activation == 0 ? logistic(x) : at.activation == 1 ? tanh(x) : exp(x - most);
        sum += out[i];
    }
    sum = lanes_sum(sum, lanes);
    if (at.activation == 2) EACH_OF_LANE(i) { out[i] /= sum; }
}

extern "C" __global__ void activate_backward(real *out, const real *activated,
                                             const unsigned *segments, size each, size dim,
                                             size rows, size lanes) {
    LANE;
    real mean = 0;
    EACH_OF_LANE(i) { mean += out[i] * activated[i]; }
    mean = lanes_sum(mean, lanes);
    EACH_OF_LANE(i) {
        real y = activated[i];
        real slope = at.activation == 0 ? y * (1 - y) : 1 - y * y;
        out[i] = at.activation == 2 ? y * (out[i] - mean) : out[i] * slope;
    }
}

extern "C" __global__ void one_hot(real *out, const unsigned *segments, size each, size dim,
                                   size rows, size lanes) {
    LANE;
    unsigned best = at.first + at.lane;
    EACH_OF_LANE(i) { best = out[i] > out[best] ? i : best; }
    // Lanes beyond a short segment have nothing to offer but its first value.
    if (at.lane >= at.dim) best = at.first;
    real most = at.dim > 0 ? out[best] : real(0);
    for (unsigned other = unsigned(lanes) / 2; other > 0; other /= 2) {
        real its = __shfl_xor_sync(0xffffffff, most, other);
        unsigned place = __shfl_xor_sync(0xffffffff, best, other);
        if (its > most || (its == most && place < best)) { most = its; best = place; }
    }
    if (at.activation == 2) EACH_OF_LANE(i) { out[i] = i == best ? real(1) : real(0); }
}

// Records: steps, samples, records a step, values a record.

// A thread a sample.
extern "C" __global__ void alive(real *out, const real *records, size steps, size batch,
                                 size per_step, size dim) {
    EACH(sample, batch) {
        bool alive = true;
        for (unsigned step = 0; step < steps; step++)
            for (unsigned i = 0; i < per_step; i++) {
                size record = (step * batch + sample) * per_step + i;
                out[record] = alive ? real(1) : real(0);
                // The flag's "yes" is a record's last value.
                alive = alive && records[(record + 1) * dim - 1] > real(0.5);
            }
    }
}

// Where column `j` of a sample's sequence lies among the records.
static __device__ size record_of(unsigned sample, unsigned j, size batch, unsigned per_step,
                                 unsigned dim) {
    unsigned step = j / (per_step * dim), rest = j % (per_step * dim);
    return (step * batch + sample) * per_step + rest / dim;
}

extern "C" __global__ void place_records(real *out, const real *records, const real *alive,
                                         size width, size sequence, size batch, size per_step,
                                         size dim) {
    EACH(i, batch * sequence) {
        unsigned sample = i / unsigned(sequence), j = i % unsigned(sequence);
        size record = record_of(sample, j, batch, per_step, dim);
        // As a product, so that a NaN is seen though masked.
        out[sample * width + j] = records[record * dim + j % unsigned(dim)] * alive[record];
    }
}

extern "C" __global__ void take_records(real *out, const real *samples, const real *alive,
                                        size width, size sequence, size batch, size per_step,
                                        size dim) {
    EACH(i, batch * sequence) {
        unsigned sample = i / unsigned(sequence), j = i % unsigned(sequence);
        size record = record_of(sample, j, batch, per_step, dim);
        real value = alive[record] > real(0) ? samples[sample * width + j] : real(0);
        out[record * dim + j % unsigned(dim)] = value;
    }
}

// Tokens: of each row its id and its weight.

extern "C" __global__ void look_up(real *out, const real *table, const unsigned *ids,
                                   const float *weights, size count, size width) {
    EACH(i, count) {
        unsigned row = i / unsigned(width), column = i % unsigned(width);
        if (weights[row] != 0.0f)
            out[i] += real(weights[row]) * table[ids[row] * width + column];
    }
}

// A thread a column of a row of the table, over all rows with its id in their order.
extern "C" __global__ void look_up_backward(real *out, const real *gradient, const unsigned *ids,
                                            const float *weights, const unsigned *order,
                                            const unsigned *starts, size count, size width) {
    EACH(i, count) {
        unsigned occurring = i / unsigned(width), column = i % unsigned(width);
        real *sum = out + ids[order[starts[occurring]]] * width + column;
        for (unsigned at = starts[occurring]; at < starts[occurring + 1]; at++) {
            unsigned row = order[at];
            if (weights[row] != 0.0f) *sum += real(weights[row]) * gradient[row * width + column];
        }
    }
}

// A warp a row.
extern "C" __global__ void cross_entropy(real *logits, double *losses, const unsigned *ids,
                                         const float *weights, size rows, size width,
                                         double scale) {
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned row = thread / 32, lane = thread % 32;
    if (row >= rows) return;
    real *out = logits + row * width;
    const double target = out[ids[row]], weight = weights[row];
    real most = out[0];
    for (unsigned i = lane; i < width; i += 32) most = fmax(most, out[i]);
    most = lanes_most(most, 32);
    double sum = 0;
    for (unsigned i = lane; i < width; i += 32) {
        out[i] = exp(out[i] - most);
        sum += out[i];
    }
    for (unsigned other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffff, sum, other);
    if (lane == 0) losses[row] = weight * (log(sum) + most - target);
    const real factor = real(weight * scale / sum);
    for (unsigned i = lane; i < width; i += 32) {
        out[i] *= factor;
        if (i == ids[row]) out[i] -= real(weight * scale);
    }
}

// One step of an LSTM: gates in the order input, forget, candidate, output.

extern "C" __global__ void lstm_cell(real *gates, const real *projected, const real *cell_before,
                                     real *cell, real *state, size batch, size hidden) {
    EACH(i, batch * hidden) {
        unsigned row = i / unsigned(hidden);
        size at = row * 4 * hidden + i % unsigned(hidden);
        real input = logistic(gates[at] + projected[at]);
        real forget = logistic(gates[at + hidden] + projected[at + hidden]);
        real candidate = tanh(gates[at + 2 * hidden] + projected[at + 2 * hidden]);
        real output = logistic(gates[at + 3 * hidden] + projected[at + 3 * hidden]);
        gates[at] = input;
        gates[at + hidden] = forget;
        gates[at + 2 * hidden] = candidate;
        gates[at + 3 * hidden] = output;
        real now = forget * cell_before[i] + input * candidate;
        cell[i] = now;
        state[i] = output * tanh(now);
    }
}

// `d_state` is what comes back from the next step, `upstream` from above.
extern "C" __global__ void lstm_cell_backward(real *gates, const real *d_state, real *d_cell,
                                              const real *upstream, const real *cell_before,
                                              const real *cell, size batch, size hidden) {
    EACH(i, batch * hidden) {
        unsigned row = i / unsigned(hidden);
        size at = row * 4 * hidden + i % unsigned(hidden);
        real input = gates[at], forget = gates[at + hidden];
        real candidate = gates[at + 2 * hidden], output = gates[at + 3 * hidden];
        real squashed = tanh(cell[i]);
        real d_out = d_state[i] + upstream[i];
        real d_now = d_cell[i] + d_out * output * (1 - squashed * squashed);
        d_cell[i] = d_now * forget;
        gates[at] = d_now * candidate * input * (1 - input);
        gates[at + hidden] = d_now * cell_before[i] * forget * (1 - forget);
        gates[at + 2 * hidden] = d_now * input * (1 - candidate * candidate);
        gates[at + 3 * hidden] = d_out * squashed * output * (1 - output);
    }
}

// Rows of `packed`: value, first and second moment and, with AMSGrad, the greatest second.
extern "C" __global__ void adam(real *packed, size count, const real *gradient, size amsgrad,
                                double beta1, double beta2, double rate, double correction,
                                double epsilon, double kept, double scale) {
    real new1 = real(1.0 - beta1), new2 = real(1.0 - beta2);
    EACH(i, count) {
        real d = real(scale) * gradient[i];
        real first = real(beta1) * packed[count + i] + new1 * d;
        real second = real(beta2) * packed[2 * count + i] + new2 * (d * d);
        packed[count + i] = first;
        packed[2 * count + i] = second;
        if (amsgrad) packed[3 * count + i] = second = fmax(packed[3 * count + i], second);
        packed[i] = real(kept) * packed[i]
                    - real(rate) * first / (sqrt(second) * real(correction) + real(epsilon));
    }
}

// Philox4x32-10 (Salmon et al., SC '11), as `random.rs` of the model's format has it.
static __device__ void philox(unsigned counter[4], unsigned key0, unsigned key1) {
    for (int round = 0; round < 10; round++) {
        unsigned low = counter[0] * 0xD2511F53u, low_high = __umulhi(counter[0], 0xD2511F53u);
        unsigned high = counter[2] * 0xCD9E8D57u, high_high = __umulhi(counter[2], 0xCD9E8D57u);
        unsigned first = high_high ^ counter[1] ^ key0, third = low_high ^ counter[3] ^ key1;
        counter[0] = first;
        counter[1] = high;
        counter[2] = third;
        counter[3] = low;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

// Uniform in the open interval (0, 1), 24 bits.
static __device__ float uniform(unsigned bits) {
    return fminf((float(bits >> 8) + 0.5f) * 5.9604644775390625e-8f, 0.99999994f);
}

// A pair of standard normals a thread (Box and Muller, 1958), of draws `first` and on.
extern "C" __global__ void normals(real *out, size pairs, size key0, size key1, size purpose,
                                   size index_low, size index_high, size first) {
    EACH(pair, pairs) {
        unsigned draws[2];
        for (int of_pair = 0; of_pair < 2; of_pair++) {
            size number = first + 2 * size(pair) + of_pair;
            unsigned counter[4] = {unsigned(number / 4), unsigned(purpose), unsigned(index_low),
                                   unsigned(index_high)};
            philox(counter, key0, key1);
            unsigned word = number % 4;
            draws[of_pair] = word == 0 ? counter[0] : word == 1 ? counter[1]
                                     : word == 2 ? counter[2] : counter[3];
        }
        float radius = sqrtf(-2.0f * logf(uniform(draws[0]))), sine, cosine;
        sincosf(6.28318530717958647692f * uniform(draws[1]), &sine, &cosine);
        out[2 * size(pair)] = radius * cosine;
        out[2 * size(pair) + 1] = radius * sine;
    }
}
