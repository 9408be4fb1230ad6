// Few rows by an int4 matrix: codes arrive ahead in shared memory as skinny.cu's weights do, and
// meet x on the tensor cores as they are, as the bf16 values 128 + code. A group's scale and
// minimum are applied to its sums in float32, so that no weight is rounded again.
#include "compute/cuda/skinny_ends.cuh"
#include "compute/cuda/tensor_core.cuh"

namespace hexgen::compute::cuda {
namespace {

constexpr int warps = 8;
constexpr int stages = 2;
constexpr int tiles = 2; // of the tensor cores, that share x
constexpr int block_rows = tiles * tile_rows;
constexpr int line = 128; // bytes of codes
constexpr int line_groups = int4_line / int4_group;
constexpr int code_bytes = block_rows * line; // a line of each row
constexpr int row_scale_bytes = line_groups * static_cast<int>(sizeof(__half2)); // of a line
constexpr int stage_bytes = code_bytes + block_rows * row_scale_bytes;

/// Codes 2p and 2p + 1 of a word as bf16 values 128 + code.
__device__ __forceinline__ unsigned code_pair(unsigned word, int p) {
  return ((word >> (4 * p)) & 0x000f000fU) | 0x43004300U;
}

__device__ __forceinline__ unsigned word_of(const uint4& piece, int j) {
  return j == 0 ? piece.x : j == 1 ? piece.y : j == 2 ? piece.z : piece.w;
}

/// x is no __restrict__, see skinny_kernel; it has up to 8 rows. A block takes some rows of w, each
/// of its warps every eighth line of them.
template <sums_to TO, class Y>
__global__ void __launch_bounds__(warps * 32, 2)
    int4_kernel(const __nv_bfloat16* x, const unsigned char* __restrict__ codes,
                const unsigned char* __restrict__ groups, const __grid_constant__ skinny_ends ends,
                int m, int n, int lines) {
  extern __shared__ __align__(128) unsigned char shared[];
  allow_successor();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int first_row = blockIdx.x * block_rows;
  unsigned char* mine = shared + warp * stages * stage_bytes;

  // Odd rows swap the halves of their line, so that a quarter of a warp reads 32 banks.
  const int to = lane / 8 * line + ((lane % 8) ^ ((lane / 8 & 1) << 2)) * 16;
  auto load = [&](int r, int stage) {
    if (r < lines) {
      unsigned char* at = mine + stage * stage_bytes;
#pragma unroll
      for (int i = 0; i < block_rows / 4; ++i) {
        const auto row = static_cast<std::size_t>(min(first_row + i * 4 + lane / 8, n - 1));
        copy_16(at + to + i * 4 * line, codes + (row * lines + r) * line + lane % 8 * 16);
      }
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        const auto row = static_cast<std::size_t>(min(first_row + i * 16 + lane / 2, n - 1));
        copy_16(at + code_bytes + i * 16 * row_scale_bytes + lane * 16,
                groups + (row * lines + r) * row_scale_bytes + lane % 2 * 16);
      }
    }
    commit_copies();
  };
#pragma unroll
  for (int s = 0; s < stages; ++s)
    load(warp + s * warps, s); // weights do not depend on the kernel before
  wait_for_predecessor();
  skinny_epilogue<warps, block_rows, TO, Y> epilogue(ends, m, n, lines * int4_line);

  const int g = lane / 4;
  const int t = lane % 4;
  const auto* row = reinterpret_cast<const uint4*>(x + static_cast<std::size_t>(min(g, m - 1)) *
                                                           lines * int4_line) +
                    t;
  uint4 input[4]; // of half a line: 8 values of each of its groups
  auto load_input = [&](int r, int half) {
    const bool there = g < m && r < lines;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      input[j] = there ? row[r * (int4_line / 8) + half * (int4_line / 16) + j * 4]
                       : make_uint4(0, 0, 0, 0);
  };
  constexpr unsigned one = 0x3f803f80U; // twice
  constexpr unsigned ones[4] = {one, one, one, one};
  load_input(warp, 0);
  float acc[tiles][4] = {};
  int stage = 0;
  for (int r = warp; r < lines; r += warps) {
    wait_for_copies<stages - 1>();
    __syncwarp();
    const unsigned char* weights = mine + stage * stage_bytes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 now[4];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        now[j] = input[j];
      load_input(half == 0 ? r : r + warps, 1 - half);
      float inputs[4][4] = {}; // sums of x of each group
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        multiply(inputs[j], ones, now[j].x, now[j].y);
        multiply(inputs[j], ones, now[j].z, now[j].w);
      }
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        const int low_row = tile * tile_rows + g;
        const unsigned char* piece = weights + ((half * 4 + t) ^ ((g & 1) << 2)) * 16;
        const uint4 low = *reinterpret_cast<const uint4*>(piece + low_row * line);
        const uint4 high = *reinterpret_cast<const uint4*>(piece + (low_row + 8) * line);
        const unsigned char* scales = weights + code_bytes + half * 16;
        const uint4 low_scales =
            *reinterpret_cast<const uint4*>(scales + low_row * row_scale_bytes);
        const uint4 high_scales =
            *reinterpret_cast<const uint4*>(scales + (low_row + 8) * row_scale_bytes);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const unsigned lw = word_of(low, j);
          const unsigned hw = word_of(high, j);
          const unsigned first[4] = {code_pair(lw, 0), code_pair(hw, 0), code_pair(lw, 1),
                                     code_pair(hw, 1)};
          const unsigned second[4] = {code_pair(lw, 2), code_pair(hw, 2), code_pair(lw, 3),
                                      code_pair(hw, 3)};
          float part[4] = {};
          multiply(part, first, now[j].x, now[j].y);
          multiply(part, second, now[j].z, now[j].w);
          auto add = [&](unsigned scale, int at) {
            const float2 s = __half22float2(*reinterpret_cast<const __half2*>(&scale));
            const float shifted = fmaf(-128.0F, s.x, s.y);
#pragma unroll
            for (int i = 0; i < 2; ++i)
              acc[tile][at + i] =
                  fmaf(s.x, part[at + i], fmaf(shifted, inputs[j][i], acc[tile][at + i]));
          };
          add(word_of(low_scales, j), 0);
          add(word_of(high_scales, j), 2);
        }
      }
    }
    __syncwarp(); // all lanes have read the stage
    load(r + stages * warps, stage);
    stage = stage + 1 == stages ? 0 : stage + 1;
  }

  // Sum the warps' parts, in their order.
  wait_for_copies<0>();
  __syncthreads();
  constexpr int pitch = block_rows + 1;
  static_assert(8 * pitch * sizeof(float) <= stages * stage_bytes);
  auto* parts = reinterpret_cast<float*>(shared); // [warps][8][pitch]
#pragma unroll
  for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      parts[(warp * 8 + t * 2 + i % 2) * pitch + tile * tile_rows + g + (i / 2) * 8] = acc[tile][i];
  epilogue.finish(parts, [](int) { return 1.0F; });
}

template <sums_to TO, class Y>
void launch(const __nv_bfloat16* x, const weight_matrix& w, const skinny_ends& ends, int m,
            cudaStream_t stream) {
  constexpr int bytes = warps * stages * stage_bytes;
  static const bool raised = [] {
    HEXGEN_CUDA_CHECK(cudaFuncSetAttribute(int4_kernel<TO, Y>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)raised;
  launch_dependent(int4_kernel<TO, Y>,
                   dim3(static_cast<unsigned>((w.rows + block_rows - 1) / block_rows)), warps * 32,
                   bytes, stream, x, w.bytes(), reinterpret_cast<const unsigned char*>(w.groups()),
                   ends, m, w.rows, w.columns / int4_line);
}

} // namespace

void skinny_int4(const __nv_bfloat16* x, const weight_matrix& w, const skinny_ends& ends,
                 sums_to to, bool to_float, int m, cudaStream_t stream) {
  if (to == sums_to::swiglu)
    launch<sums_to::swiglu, __nv_bfloat16>(x, w, ends, m, stream);
  else if (to == sums_to::hidden)
    launch<sums_to::hidden, __nv_bfloat16>(x, w, ends, m, stream);
  else if (to_float)
    launch<sums_to::rows, float>(x, w, ends, m, stream);
  else
    launch<sums_to::rows, __nv_bfloat16>(x, w, ends, m, stream);
}

} // namespace hexgen::compute::cuda
