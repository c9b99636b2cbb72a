// Passes that touch every element: ReLU, a look for what is not finite, softmax with its loss, the updates of the optimizers.
//
// All are as fast as memory is. An array is one long row here, whatever its shape, cut into vectors of WIDTH elements, 16 bytes
// where the arrays are aligned to them; each thread takes one vector, neighbours neighbouring ones, and the elements that are
// left over at the end are taken one by one by the threads that come next:
//
//      | vector 0 | vector 1 | vector 2 | a | b |        size = 14, WIDTH = 4
//        thread 0   thread 1   thread 2   3   4
//
// 16-bit types are computed with in float and rounded when they are stored.
#include "common.cuh"

// Threads of a block that work on elements, or share the rows of a softmax.
constexpr int THREADS = 256;

template <int VALUE_> struct Width { static constexpr int VALUE = VALUE_; };

// Calls visit(Width<W>, first element) for the elements of this thread: W = WIDTH, or 1 at the end.
template <int WIDTH, typename Visit> __device__ __forceinline__ void visit_own_elements(long long size, Visit visit) {
    const long long item = (long long)(blockIdx.x) * THREADS + threadIdx.x, vectors = size / WIDTH;
    if (item < vectors) {
        visit(Width<WIDTH>(), item * WIDTH);
    } else if (item - vectors < size - vectors * WIDTH) {
        visit(Width<1>(), vectors * WIDTH + item - vectors);
    }
}

// ---- ReLU ---------------------------------------------------------------------------------------------------------------

// y = max(x, 0), NaN kept.
template <typename T, int WIDTH> __global__ void __launch_bounds__(THREADS, 1) relu_forward(const T* x, T* y, long long size) {
    visit_own_elements<WIDTH>(size, [&](auto width, long long first) {
        auto values = vector_at<width.VALUE>(x + first);
#pragma unroll
        for (T& value : values.at)
            if (widen(value) <= 0) value = zero<T>();  // in this order, since a comparison with NaN is false
        vector_at<width.VALUE>(y + first) = values;
    });
}

// dx = dy where y > 0, else 0. No product: an infinite gradient stays out of where it does not belong.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1) relu_backward(const T* dy, const T* y, T* dx, long long size) {
    visit_own_elements<WIDTH>(size, [&](auto width, long long first) {
        auto gradients = vector_at<width.VALUE>(dy + first);
        const auto values = vector_at<width.VALUE>(y + first);
#pragma unroll
        for (int i = 0; i < width.VALUE; ++i)
            if (!(widen(values.at[i]) > 0)) gradients.at[i] = zero<T>();
        vector_at<width.VALUE>(dx + first) = gradients;
    });
}

// ---- a look at every element --------------------------------------------------------------------------------------------

// Sets *finite, which is 1, to 0 if an element is NaN or infinite.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1) all_finite(const T* x, int* finite, long long size) {
    visit_own_elements<WIDTH>(size, [&](auto width, long long first) {
        const auto values = vector_at<width.VALUE>(x + first);
        bool good = true;
#pragma unroll
        for (const T& value : values.at) good &= widen(value) - widen(value) == 0;  // the difference is NaN otherwise
        if (!good) atomicExch(finite, 0);
    });
}

// ---- softmax and its loss -----------------------------------------------------------------------------------------------

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

struct Sum {
    template <typename Number> __device__ Number operator()(Number a, Number b) const { return a + b; }
};
struct Larger {  // NaN if one of them is
    template <typename Number> __device__ Number operator()(Number a, Number b) const { return a > b || a != a ? a : b; }
};

// A block of THREADS threads works on THREADS / TEAM rows at once; the TEAM threads of a row take every TEAM-th class each.
//
//      row 0   0 1 2 .. 7 0 1 2 .. 7 0 1      TEAM = 8, 18 classes
//      row 1   0 1 2 .. 7 0 1 2 .. 7 0 1
//
// Sums run in the same order every time.
template <int TEAM> struct Team {
    static constexpr int TEAMS = THREADS / TEAM;
    static_assert(TEAM <= 32 || TEAM == THREADS, "a team is a part of a warp, or the block");
    int member;
    long long row;

    __device__ Team() : member(threadIdx.x % TEAM), row((long long)(blockIdx.x) * TEAMS + threadIdx.x / TEAM) {}

    // The values of all members made one, for every member. All threads of the block must come here.
    template <typename Combine, typename Number> __device__ Number combined(Number value, Combine combine) const {
#pragma unroll
        for (int distance = (TEAM < 32 ? TEAM : 32) / 2; distance > 0; distance /= 2)
            value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
        if constexpr (TEAM > 32) {
            __shared__ Number of_warps[THREADS / 32];
            __syncthreads();  // the last result has been read
            if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
            __syncthreads();
            value = of_warps[0];
#pragma unroll
            for (int warp = 1; warp < THREADS / 32; ++warp) value = combine(value, of_warps[warp]);
        }
        return value;
    }
};

template <typename Label> struct IsClass { static constexpr bool VALUE = false; };
template <> struct IsClass<long long> { static constexpr bool VALUE = true; };

// The softmax of every row of scores and its cross-entropy loss.
//
//   x, y     (rows, classes)
//   labels   (rows,) class numbers where Label is long long, else (rows, classes) probabilities
//   losses   (rows,)
//
// The scores are read three times, and come from the cache after the first.
template <typename T, typename Label, int TEAM>
__global__ void __launch_bounds__(THREADS, 1) softmax_cross_entropy_forward(
    const T* x, const Label* labels, T* y, accumulator_t<T>* losses, long long rows, int classes) {
    using Number = accumulator_t<T>;
    const Team<TEAM> team;
    const bool present = team.row < rows;
    const long long first = present ? team.row * classes : 0;
    const int own_classes = present ? classes : 0;
    x += first;
    y += first;

    Number largest = present ? Number(widen(x[0])) : Number(0);
    for (int i = team.member; i < own_classes; i += TEAM) largest = Larger()(largest, Number(widen(x[i])));
    largest = team.combined(largest, Larger());

    Number total = 0;
    for (int i = team.member; i < own_classes; i += TEAM) total += exponential(widen(x[i]) - largest);
    total = team.combined(total, Sum());

    const Number log_total = logarithm(total);
    Number loss = 0;
    for (int i = team.member; i < own_classes; i += TEAM) {
        const Number below = widen(x[i]) - largest;
        y[i] = narrow<T>(exponential(below) / total);
        if constexpr (!IsClass<Label>::VALUE) {
            const Number label = Number(widen(labels[first + i]));
            loss += label * (label > 0 ? log_total - below : Number(0));  // an impossible class that no label asks for is free
        }
    }
    if constexpr (IsClass<Label>::VALUE) {
        if (present && team.member == 0) losses[team.row] = log_total - (Number(widen(x[labels[team.row]])) - largest);
    } else {
        loss = team.combined(loss, Sum());
        if (present && team.member == 0) losses[team.row] = loss;
    }
}

// The mean of all losses, summed in double by the one block that there is.
template <typename Number>
__global__ void __launch_bounds__(THREADS, 1) mean_of_losses(const Number* losses, double* mean, long long rows) {
    const Team<THREADS> team;
    double total = 0;
    for (long long row = team.member; row < rows; row += THREADS) total += double(losses[row]);
    total = team.combined(total, Sum());
    if (team.member == 0) *mean = total / double(rows);
}

// dx = scale * (y - labels), with the rows of y brought to the sum of the rows of labels. Arrays as in the forward pass.
template <typename T, typename Label, int TEAM>
__global__ void __launch_bounds__(THREADS, 1) softmax_cross_entropy_backward(
    const T* y, const Label* labels, T* dx, accumulator_t<T> scale, long long rows, int classes) {
    using Number = accumulator_t<T>;
    const Team<TEAM> team;
    const bool present = team.row < rows;
    const long long first = present ? team.row * classes : 0;
    const int own_classes = present ? classes : 0;

    if constexpr (IsClass<Label>::VALUE) {
        const long long label = present ? labels[team.row] : 0;
        for (int i = team.member; i < own_classes; i += TEAM)
            dx[first + i] = narrow<T>((widen(y[first + i]) - Number(i == label)) * scale);
    } else {
        Number total = 0;
        for (int i = team.member; i < own_classes; i += TEAM) total += Number(widen(labels[first + i]));
        total = team.combined(total, Sum());
        for (int i = team.member; i < own_classes; i += TEAM)
            dx[first + i] = narrow<T>((widen(y[first + i]) * total - Number(widen(labels[first + i]))) * scale);
    }
}

// ---- updates of the optimizers ------------------------------------------------------------------------------------------

__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }

// What decays and gets nothing new ends at zero, not among the numbers too small to be normal, where processors crawl and
// devices differ.
__device__ __forceinline__ float decayed(float value) { return fabsf(value) < 1.17549435e-38f ? 0.0f : value; }
__device__ __forceinline__ double decayed(double value) { return fabs(value) < 2.2250738585072014e-308 ? 0.0 : value; }

template <int WIDTH, typename T> __device__ __forceinline__ Vector<accumulator_t<T>, WIDTH> load(const T* first) {
    const auto values = vector_at<WIDTH>(first);
    Vector<accumulator_t<T>, WIDTH> result;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) result.at[i] = widen(values.at[i]);
    return result;
}

template <int WIDTH, typename T>
__device__ __forceinline__ void store(T* first, const Vector<accumulator_t<T>, WIDTH>& values) {
    Vector<T, WIDTH> result;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) result.at[i] = narrow<T>(values.at[i]);
    vector_at<WIDTH>(first) = result;
}

// Calls step(parameter, gradient, states...) for each element of this thread, with references to all but the gradient, and
// stores what the step made of them.
template <int WIDTH, typename Step, typename T, typename... States>
__device__ __forceinline__ void update(long long size, Step step, T* param, const T* grad, States*... states) {
    visit_own_elements<WIDTH>(size, [&](auto width, long long first) {
        constexpr int COUNT = decltype(width)::VALUE;
        const auto gradients = load<COUNT>(grad + first);
        const auto step_all = [&](auto params, auto... values) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) step(params.at[i], gradients.at[i], values.at[i]...);
            store<COUNT>(param + first, params);
            (store<COUNT>(states + first, values), ...);
        };
        step_all(load<COUNT>(param + first), load<COUNT>(states + first)...);
    });
}

template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1) sgd_update(T* param, const T* grad, long long size, accumulator_t<T> lr) {
    using Number = accumulator_t<T>;
    update<WIDTH>(size, [=](Number& p, Number g) { p -= g * lr; }, param, grad);
}

template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1)
    momentum_update(T* param, const T* grad, T* velocity, long long size, accumulator_t<T> lr, accumulator_t<T> momentum) {
    using Number = accumulator_t<T>;
    const auto step = [=](Number& p, Number g, Number& v) {
        v = decayed(v * momentum - g * lr);
        p += v;
    };
    update<WIDTH>(size, step, param, grad, velocity);
}

template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1)
    nesterov_update(T* param, const T* grad, T* velocity, long long size, accumulator_t<T> lr, accumulator_t<T> momentum) {
    using Number = accumulator_t<T>;
    const auto step = [=](Number& p, Number g, Number& v) {
        v = decayed(v * momentum - g * lr);
        p = p - g * lr + v * momentum;
    };
    update<WIDTH>(size, step, param, grad, velocity);
}

template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1)
    adagrad_update(T* param, const T* grad, T* squares, long long size, accumulator_t<T> lr, accumulator_t<T> epsilon) {
    using Number = accumulator_t<T>;
    const auto step = [=](Number& p, Number g, Number& s) {
        s += g * g;
        p -= g / (square_root(s) + epsilon) * lr;
    };
    update<WIDTH>(size, step, param, grad, squares);
}

// `kept` is the decay rate, `added` is 1 less it.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1)
    rmsprop_update(T* param, const T* grad, T* squares, long long size, accumulator_t<T> lr, accumulator_t<T> kept,
                   accumulator_t<T> added, accumulator_t<T> epsilon) {
    using Number = accumulator_t<T>;
    const auto step = [=](Number& p, Number g, Number& s) {
        s = decayed(s * kept + g * g * added);
        p -= g / (square_root(s) + epsilon) * lr;
    };
    update<WIDTH>(size, step, param, grad, squares);
}

// `of_grad` is 1 - beta1, `of_square` is 1 - beta2.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1)
    adam_update(T* param, const T* grad, T* mean, T* squares, long long size, accumulator_t<T> lr, accumulator_t<T> of_grad,
                accumulator_t<T> of_square, accumulator_t<T> epsilon) {
    using Number = accumulator_t<T>;
    const auto step = [=](Number& p, Number g, Number& m, Number& s) {
        m = decayed(m + (g - m) * of_grad);
        s = decayed(s + (g * g - s) * of_square);
        p -= m / (square_root(s) + epsilon) * lr;
    };
    update<WIDTH>(size, step, param, grad, mean, squares);
}
