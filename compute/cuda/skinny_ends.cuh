// What the kernels of few rows do before and after their sums.
#pragma once

#include "compute/cuda/launch.cuh"
#include "compute/cuda/skinny.hpp"

#include <type_traits>

namespace hexgen::compute::cuda {

inline constexpr int tile_rows = 16; // of w, on the tensor cores

/// What becomes of the sums.
enum class sums_to : unsigned char { rows, swiglu, hidden };

struct skinny_ends {
  void* y = nullptr;
  pending_norm norm;
  residual add;
};

/// A block has WARPS warps and takes ROWS rows of w, a multiple of tile_rows.
template <int WARPS, int ROWS, sums_to TO, class Y>
class skinny_epilogue {
public:
  /// After the wait for the kernel in front: begins to read what that one wrote. `k`: columns of w,
  /// `n`: its rows, m at most 8.
  __device__ __forceinline__ skinny_epilogue(const skinny_ends& ends, int m, int n, int k)
      : ends_(ends), m_(m), n_(n), k_(k) {
    if constexpr (TO == sums_to::hidden) {
      if (mine())
        hidden_ = ends_.add.hidden[at()];
    }
    const int warp = threadIdx.x / 32;
    if (ends_.norm.squares != nullptr && warp < m_) {
      // Not added up yet: the warp would wait for them before its first product.
#pragma unroll
      for (int i = 0; i < early; ++i)
        squares_[i] = part_of(warp, i);
    }
  }

  /// `parts` [WARPS][8][ROWS + 1] in shared memory, written and not yet synchronised;
  /// `scale(row)` of w's row.
  template <class S>
  __device__ __forceinline__ void finish(const float* parts, const S& scale) {
    __shared__ float divided[8];
    if (ends_.norm.squares != nullptr) {
      const int warp = threadIdx.x / 32;
      for (int row = warp; row < m_; row += WARPS) {
        float total = 0;
#pragma unroll
        for (int i = 0; i < early; ++i)
          total += row == warp ? squares_[i] : part_of(row, i);
        for (int i = early; i * 32 < k_ / tile_rows; ++i)
          total += part_of(row, i);
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2)
          total += __shfl_xor_sync(0xffffffffU, total, offset);
        if (threadIdx.x % 32 == 0)
          divided[row] = rsqrtf(total / static_cast<float>(k_) + ends_.norm.epsilon);
      }
    }
    __syncthreads();
    const int first_row = blockIdx.x * ROWS;
    auto sum = [&](int column, int row) {
      float total = 0;
#pragma unroll
      for (int s = 0; s < WARPS; ++s)
        total += parts[(s * 8 + column) * (ROWS + 1) + row];
      total *= scale(min(first_row + row, n_ - 1));
      return ends_.norm.squares == nullptr ? total : total * divided[column];
    };
    if constexpr (TO == sums_to::hidden) {
      if (!mine())
        return;
      const int row = threadIdx.x % ROWS;
      const int column = threadIdx.x / ROWS;
      const float value = hidden_ + sum(column, row);
      ends_.add.hidden[at()] = value;
      ends_.add.weighted[at()] = __float2bfloat16(value * ends_.add.weight[first_row + row]);
      float squares = value * value;
      const unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffU : 0xffff0000U;
#pragma unroll
      for (int offset = tile_rows / 2; offset > 0; offset /= 2)
        squares += __shfl_xor_sync(half, squares, offset);
      if (row % tile_rows == 0)
        ends_.add.squares[(column * n_ + first_row + row) / tile_rows] = squares;
    } else {
      constexpr bool swiglu = TO == sums_to::swiglu;
      constexpr int outputs = swiglu ? ROWS / 2 : ROWS;
      auto* y = static_cast<Y*>(ends_.y);
      for (int i = threadIdx.x; i < outputs * m_; i += WARPS * 32) {
        const int column = i / outputs;
        const int at = i % outputs;
        const int to_row = blockIdx.x * outputs + at;
        if constexpr (swiglu) {
          if (to_row >= n_ / 2)
            continue;
          const float gate = sum(column, 2 * at);
          y[static_cast<std::size_t>(column) * (n_ / 2) + to_row] =
              static_cast<Y>(gate / (1.0F + __expf(-gate)) * sum(column, 2 * at + 1));
        } else if (to_row < n_) {
          y[static_cast<std::size_t>(column) * n_ + to_row] = static_cast<Y>(sum(column, at));
        }
      }
    }
  }

private:
  static_assert(TO != sums_to::hidden || 8 * ROWS <= WARPS * 32, "a thread a sum");

  static constexpr int early = 8;

  /// Of the sums of squares of a row of x, every 32nd.
  [[nodiscard]] __device__ __forceinline__ float part_of(int row, int i) const {
    const int parts = k_ / tile_rows;
    const int part = i * 32 + threadIdx.x % 32;
    return part < parts ? ends_.norm.squares[row * parts + part] : 0.0F;
  }
  [[nodiscard]] __device__ __forceinline__ bool mine() const {
    return threadIdx.x < static_cast<unsigned>(ROWS * m_) &&
           blockIdx.x * ROWS + threadIdx.x % ROWS < static_cast<unsigned>(n_);
  }
  [[nodiscard]] __device__ __forceinline__ std::size_t at() const {
    return static_cast<std::size_t>(threadIdx.x / ROWS) * n_ + blockIdx.x * ROWS +
           threadIdx.x % ROWS;
  }

  const skinny_ends& ends_;
  int m_, n_, k_;
  float hidden_ = 0;
  float squares_[early] = {};
};

/// Calls launch(x, ends, rows) for every 8 rows of x, a tile of the tensor cores.
template <class Launch>
void for_tiles(const weight_matrix& w, const __nv_bfloat16* x, skinny_ends ends,
               std::size_t y_row_bytes, int m, const Launch& launch) {
  const auto n = static_cast<std::size_t>(w.rows);
  const auto k = static_cast<std::size_t>(w.columns);
  for (int row = 0; row < m; row += 8) {
    launch(x, ends, m - row < 8 ? m - row : 8);
    x += 8 * k;
    ends.y = static_cast<unsigned char*>(ends.y) + 8 * y_row_bytes;
    if (ends.norm.squares != nullptr)
      ends.norm.squares += 8 * k / tile_rows;
    if (ends.add.hidden != nullptr) {
      ends.add.hidden += 8 * n;
      ends.add.weighted += 8 * n;
      ends.add.squares += 8 * n / tile_rows;
    }
  }
}

/// skinny() for bf16 matrices of a multiple of broad_rows rows, m up to broad_inputs; sm_90a.
inline constexpr int broad_rows = 64;
inline constexpr int broad_inputs = 16;
void skinny_broad(const __nv_bfloat16* x, const weight_matrix& w, const skinny_ends& ends,
                  sums_to to, bool to_float, int m, const shared_sums& scratch,
                  cudaStream_t stream);

/// skinny() for int4 matrices.
void skinny_int4(const __nv_bfloat16* x, const weight_matrix& w, const skinny_ends& ends,
                 sums_to to, bool to_float, int m, cudaStream_t stream);

} // namespace hexgen::compute::cuda
