// One block a row. Weights are exact_exp() of the scaled logits in units of 2^-32 of the largest:
// their sums are integers. top_p's and top_k's limits are found byte by byte (radix selection).
#include "compute/cuda/choose.hpp"
#include "compute/cuda/launch.cuh"

#include <cfloat>

namespace hexgen::compute::cuda {
namespace {

constexpr int threads = 1024;
constexpr float greedy_below = 1e-5F;
using sum_type = unsigned long long;

// The host's exact_exp(), operation by operation: nothing may be fused.
__device__ float exact_exp(float x) {
  x = fmaxf(fminf(x, 89.0F), -104.0F);
  constexpr float rounder = 12582912.0F;
  const float shifted = __fadd_rn(__fmul_rn(x, 1.44269504088896341F), rounder);
  const int n = __float_as_int(shifted) - __float_as_int(rounder);
  const float nf = __fsub_rn(shifted, rounder);
  const float r =
      __fsub_rn(__fsub_rn(x, __fmul_rn(nf, 0.693359375F)), __fmul_rn(nf, -2.12194440e-4F));
  float p = 1.9875691500e-4F;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3F);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3F);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2F);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1F);
  p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1F);
  p = __fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0F);
  const int half = n >> 1;
  return __fmul_rn(__fmul_rn(p, __int_as_float((half + 127) << 23)),
                   __int_as_float((n - half + 127) << 23));
}

__device__ float score_of(float logit, float temperature) {
  logit = logit >= -FLT_MAX ? logit : -FLT_MAX; // NaN too
  logit = logit <= FLT_MAX ? logit : FLT_MAX;
  if (temperature >= greedy_below && temperature != 1.0F)
    logit = fmaxf(fminf(__fdiv_rn(logit, temperature), FLT_MAX), -FLT_MAX);
  return __fadd_rn(logit, 0.0F); // -0 counts as 0
}

__device__ sum_type fixed(float weight) {
  return __double2ull_rn(static_cast<double>(weight) * 4294967296.0);
}

// Bits in the order of the floats.
__device__ unsigned ordered(float x) {
  const unsigned bits = __float_as_uint(x);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

struct best_score {
  float score;
  int at;
};
__device__ best_score better(best_score a, best_score b) {
  return b.score > a.score || (b.score == a.score && b.at < a.at) ? b : a;
}

struct shared_state {
  sum_type sums[32];
  best_score bests[32];
  sum_type histogram[256];
  sum_type above;
  unsigned prefix;
  int token;
  float score[most_top_k];
  int id[most_top_k];
};

__device__ best_score block_best(best_score mine, shared_state& s) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    mine = better(mine, {__shfl_xor_sync(0xffffffffU, mine.score, offset),
                         __shfl_xor_sync(0xffffffffU, mine.at, offset)});
  if (threadIdx.x % 32 == 0)
    s.bests[threadIdx.x / 32] = mine;
  __syncthreads();
  best_score all = s.bests[0];
  for (int w = 1; w < threads / 32; ++w)
    all = better(all, s.bests[w]);
  __syncthreads();
  return all;
}

/// The sum of `mine` over the threads before this one; `total` over all.
__device__ sum_type block_scan(sum_type mine, shared_state& s, sum_type& total) {
  const int lane = threadIdx.x % 32;
  sum_type upto = mine;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const sum_type other = __shfl_up_sync(0xffffffffU, upto, offset);
    if (lane >= offset)
      upto += other;
  }
  if (lane == 31)
    s.sums[threadIdx.x / 32] = upto;
  __syncthreads();
  sum_type before = 0;
  total = 0;
  for (int w = 0; w < threads / 32; ++w) {
    if (w < static_cast<int>(threadIdx.x / 32))
      before += s.sums[w];
    total += s.sums[w];
  }
  __syncthreads();
  return before + upto - mine;
}

/// Finds the key at which the values of all greater keys sum below `wanted` but with its own reach
/// it: key in s.prefix, the sum of the greater ones in s.above. key_value(i) gives both.
template <class F>
__device__ void select(int width, double wanted, shared_state& s, F key_value) {
  if (threadIdx.x == 0) {
    s.above = 0;
    s.prefix = 0;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256)
      s.histogram[threadIdx.x] = 0;
    __syncthreads();
    const unsigned prefix = s.prefix;
    for (int i = threadIdx.x; i < width; i += threads) {
      unsigned key = 0;
      sum_type value = 0;
      key_value(i, key, value);
      if (value != 0 && (shift == 24 || (key ^ prefix) >> (shift + 8) == 0))
        atomicAdd(&s.histogram[(key >> shift) & 255U], value);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned byte = 255;
      while (byte > 0 && static_cast<double>(s.above + s.histogram[byte]) < wanted)
        s.above += s.histogram[byte--];
      s.prefix |= byte << shift;
    }
    __syncthreads();
  }
}

/// The first index whose running sum of value(i) passes target; values are walked in order.
template <class F>
__device__ void walk(int begin, int end, sum_type before, double target, shared_state& s, F value) {
  for (int i = begin; i < end; ++i) {
    before += value(i);
    if (static_cast<double>(before) > target) {
      s.token = i;
      return;
    }
  }
}

__device__ void draw_from_top(const float* row, int width, const row_choice& c, float highest,
                              shared_state& s) {
  const float temperature = c.temperature;
  select(width, c.top_k, s, [&](int i, unsigned& key, sum_type& value) {
    key = ordered(score_of(row[i], temperature));
    value = 1;
  });
  const unsigned limit = s.prefix;
  const auto ties = static_cast<sum_type>(c.top_k) - s.above;
  const int each = (width + threads - 1) / threads;
  const int begin = min(width, static_cast<int>(threadIdx.x) * each);
  const int end = min(width, begin + each);
  // Greater scores count in the high half, equal ones in the low half of one scan.
  sum_type mine = 0;
  for (int i = begin; i < end; ++i) {
    const unsigned key = ordered(score_of(row[i], temperature));
    mine += key > limit ? 1ULL << 32 : key == limit ? 1ULL : 0ULL;
  }
  sum_type total = 0;
  const sum_type at = block_scan(mine, s, total);
  sum_type greater = at >> 32;
  sum_type equal = at & 0xffffffffULL;
  for (int i = static_cast<int>(threadIdx.x); i < most_top_k; i += threads) {
    s.score[i] = -INFINITY;
    s.id[i] = 0x7fffffff;
  }
  __syncthreads();
  for (int i = begin; i < end; ++i) {
    const float score = score_of(row[i], temperature);
    const unsigned key = ordered(score);
    sum_type to = most_top_k;
    if (key > limit)
      to = greater++;
    else if (key == limit && equal < ties)
      to = s.above + equal++;
    if (to < most_top_k) {
      s.score[to] = score;
      s.id[to] = i;
    }
  }
  // Bitonic: scores down, then ids up.
  for (int size = 2; size <= most_top_k; size *= 2)
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      const int i = static_cast<int>(threadIdx.x);
      const int j = i ^ stride;
      if (j > i) {
        const bool first =
            s.score[i] > s.score[j] || (s.score[i] == s.score[j] && s.id[i] < s.id[j]);
        if (first != ((i & size) == 0)) {
          const float score = s.score[i];
          const int id = s.id[i];
          s.score[i] = s.score[j];
          s.id[i] = s.id[j];
          s.score[j] = score;
          s.id[j] = id;
        }
      }
    }
  __syncthreads();
  const int count = min(c.top_k, width);
  if (static_cast<int>(threadIdx.x) < count) {
    const float weight = exact_exp(__fsub_rn(s.score[threadIdx.x], highest));
    s.score[threadIdx.x] = weight < c.min_p ? 0.0F : weight;
  }
  sum_type all = 0;
  (void)block_scan(static_cast<int>(threadIdx.x) < count ? fixed(s.score[threadIdx.x]) : 0ULL, s,
                   all);
  if (threadIdx.x != 0)
    return;
  const double wanted = static_cast<double>(c.top_p) * static_cast<double>(all);
  sum_type kept = 0;
  int n = 0;
  while (n < count && (n == 0 || static_cast<double>(kept) < wanted))
    kept += fixed(s.score[n++]);
  s.token = 0;
  walk(0, n, 0, c.uniform * static_cast<double>(kept), s, [&](int i) { return fixed(s.score[i]); });
  s.token = s.id[s.token];
}

__device__ void draw_from_all(const float* row, int width, const row_choice& c, float highest,
                              shared_state& s) {
  auto weight = [&](int i) {
    const float w = exact_exp(__fsub_rn(score_of(row[i], c.temperature), highest));
    return w < c.min_p ? 0.0F : w;
  };
  unsigned limit = 0; // weights of at least these bits are kept
  sum_type ties = ~0ULL;
  if (c.top_p < 1.0F) {
    sum_type mine = 0;
    for (int i = threadIdx.x; i < width; i += threads)
      mine += fixed(weight(i));
    sum_type total = 0;
    (void)block_scan(mine, s, total);
    const double wanted = static_cast<double>(c.top_p) * static_cast<double>(total);
    select(width, wanted, s, [&](int i, unsigned& key, sum_type& value) {
      const float w = weight(i);
      key = __float_as_uint(w);
      value = fixed(w);
    });
    limit = s.prefix;
    const sum_type one = max(fixed(__uint_as_float(limit)), 1ULL);
    const double missing = wanted - static_cast<double>(s.above);
    ties = missing > 0 ? static_cast<sum_type>(missing / static_cast<double>(one)) : 0;
    while (static_cast<double>(s.above + ties * one) < wanted || s.above + ties == 0)
      ++ties;
  }
  const int each = (width + threads - 1) / threads;
  const int begin = min(width, static_cast<int>(threadIdx.x) * each);
  const int end = min(width, begin + each);
  sum_type equal = 0; // ties before this thread's run
  if (c.top_p < 1.0F) {
    sum_type mine = 0;
    for (int i = begin; i < end; ++i)
      mine += __float_as_uint(weight(i)) == limit ? 1U : 0U;
    sum_type total = 0;
    equal = block_scan(mine, s, total);
  }
  sum_type seen = equal;
  auto kept = [&](int i) -> sum_type {
    const float w = weight(i);
    const unsigned bits = __float_as_uint(w);
    if (bits < limit || (bits == limit && seen++ >= ties))
      return 0;
    return fixed(w);
  };
  sum_type mine = 0;
  for (int i = begin; i < end; ++i)
    mine += kept(i);
  sum_type total = 0;
  const sum_type before = block_scan(mine, s, total);
  const double target = c.uniform * static_cast<double>(total);
  seen = equal;
  if (static_cast<double>(before) <= target && static_cast<double>(before + mine) > target)
    walk(begin, end, before, target, s, kept);
}

__global__ void __launch_bounds__(threads)
    choose_kernel(const float* __restrict__ logits, const row_choice* __restrict__ choices,
                  std::int32_t* __restrict__ tokens, int width) {
  __shared__ shared_state s;
  allow_successor();
  wait_for_predecessor();
  const row_choice c = choices[blockIdx.x];
  if (c.on_host) {
    if (threadIdx.x == 0)
      tokens[blockIdx.x] = -1;
    return;
  }
  const float* row = logits + static_cast<std::size_t>(blockIdx.x) * width;
  best_score mine{-INFINITY, width};
  for (int i = threadIdx.x; i < width; i += threads)
    mine = better(mine, {score_of(row[i], c.temperature), i});
  const best_score best = block_best(mine, s);
  if (threadIdx.x == 0)
    s.token = best.at;
  __syncthreads();
  if (c.temperature >= greedy_below) {
    if (c.top_k > 0 && c.top_k < width)
      draw_from_top(row, width, c, best.score, s);
    else
      draw_from_all(row, width, c, best.score, s);
    __syncthreads();
  }
  if (threadIdx.x == 0)
    tokens[blockIdx.x] = s.token;
}

} // namespace

void choose(const float* logits, const row_choice* choices, std::int32_t* tokens, int rows,
            int width, cudaStream_t stream) {
  if (rows > 0)
    launch_dependent(choose_kernel, dim3(static_cast<unsigned>(rows)), threads, 0, stream, logits,
                     choices, tokens, width);
}

} // namespace hexgen::compute::cuda
