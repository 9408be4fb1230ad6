// A block takes 16 rows of w, each of its warps every twelfth run of one or two lines of them:
// weights arrive ahead in shared memory that is the warp's own. Of a row of 4,096 bf16 values three
// quarters are on their way before the kernel in front has ended.
#include "compute/cuda/e4m3.cuh"
#include "compute/cuda/skinny_ends.cuh"
#include "compute/cuda/tensor_core.cuh"

namespace hexgen::compute::cuda {
namespace {

constexpr int block_rows = tile_rows;
constexpr int k_splits = 12;                  // warps
constexpr int line = 128;                     // bytes
constexpr int tile_bytes = block_rows * line; // a line of each row
template <int LINES>
constexpr int stages = 4 / LINES;
template <int LINES>
constexpr int bytes_ahead = stages<LINES>* LINES* tile_bytes; // of a warp

/// Pairs of bf16 from 16 bytes of weights.
__device__ __forceinline__ void expand(const uint4& chunk, unsigned (&pairs)[4]) {
  pairs[0] = chunk.x;
  pairs[1] = chunk.y;
  pairs[2] = chunk.z;
  pairs[3] = chunk.w;
}
__device__ __forceinline__ void expand(const uint4& chunk, unsigned (&pairs)[8]) {
  const unsigned words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    pairs[i] = e4m3_pair(words[i / 2], i % 2);
}

/// A weight's type: bf16, or e4m3 as bytes.
template <class W>
constexpr int line_values = line / static_cast<int>(sizeof(W));
template <class W>
constexpr int chunk_values = 16 / static_cast<int>(sizeof(W));

/// x has up to 8 rows, a tile of the tensor cores. Which values of k meet in one tensor core
/// product does not matter as long as both sides agree: lane t of a quad takes chunks t and t + 4
/// of a line's 8, each one 16-byte load. `scales`: of w's rows, with e4m3. `lines`: of a row, a
/// multiple of LINES, those of a run. x is no __restrict__: what the compiler knows to be constant
/// it may read before the wait, when the kernel in front still writes it.
template <sums_to TO, int LINES, class W, class Y>
__global__ void __launch_bounds__(k_splits * 32, 2)
    skinny_kernel(const __nv_bfloat16* x, const W* __restrict__ w, const float* __restrict__ scales,
                  const __grid_constant__ skinny_ends ends, int m, int n, int lines) {
  extern __shared__ __align__(128) unsigned char shared[];
  allow_successor();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int first_row = blockIdx.x * block_rows;
  const int runs = lines / LINES;
  constexpr int stage_bytes = LINES * tile_bytes;
  unsigned char* mine = shared + warp * bytes_ahead<LINES>;

  // Odd rows swap the halves of their line, so that a quarter of a warp reads 32 banks.
  const unsigned char* from[4];
  int to[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = i * 4 + lane / 8;
    const int chunk = lane % 8;
    const int global_row = min(first_row + row, n - 1);
    from[i] = reinterpret_cast<const unsigned char*>(w) +
              static_cast<std::size_t>(global_row) * lines * line + chunk * 16;
    to[i] = row * line + (chunk ^ ((row & 1) << 2)) * 16;
  }
  auto load = [&](int r, int stage) {
    if (r < runs) {
#pragma unroll
      for (int l = 0; l < LINES; ++l)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          copy_16(mine + stage * stage_bytes + l * tile_bytes + to[i],
                  from[i] + (r * LINES + l) * line);
    }
    commit_copies();
  };
#pragma unroll
  for (int s = 0; s < stages<LINES>; ++s)
    load(warp + s * k_splits, s); // weights do not depend on the kernel before
  wait_for_predecessor();
  skinny_epilogue<k_splits, block_rows, TO, Y> epilogue(ends, m, n, lines * line_values<W>);

  const int g = lane / 4;
  const int t = lane % 4;
  constexpr int halves = 2 * LINES;           // of lines
  constexpr int inputs = chunk_values<W> / 8; // 16-byte pieces of x beside a chunk
  const auto* row = reinterpret_cast<const uint4*>(x + static_cast<std::size_t>(min(g, m - 1)) *
                                                           lines * line_values<W>) +
                    t * inputs;
  uint4 input[halves][inputs];
  auto load_input = [&](int r) {
    const bool there = g < m && r < runs;
#pragma unroll
    for (int h = 0; h < halves; ++h)
#pragma unroll
      for (int i = 0; i < inputs; ++i)
        input[h][i] = there ? row[(r * halves + h) * 4 * inputs + i] : make_uint4(0, 0, 0, 0);
  };
  load_input(warp);
  float acc[4] = {};
  int stage = 0;
  for (int r = warp; r < runs; r += k_splits) {
    wait_for_copies<stages<LINES> - 1>();
    __syncwarp();
    uint4 now[halves][inputs];
#pragma unroll
    for (int h = 0; h < halves; ++h)
#pragma unroll
      for (int i = 0; i < inputs; ++i)
        now[h][i] = input[h][i];
    load_input(r + k_splits);
    const unsigned char* weights = mine + stage * stage_bytes;
#pragma unroll
    for (int h = 0; h < halves; ++h) {
      const unsigned char* half =
          weights + h / 2 * tile_bytes + ((h % 2 * 4 + t) ^ ((g & 1) << 2)) * 16;
      unsigned low[chunk_values<W> / 2];
      unsigned high[chunk_values<W> / 2];
      expand(*reinterpret_cast<const uint4*>(half + g * line), low);
      expand(*reinterpret_cast<const uint4*>(half + (g + 8) * line), high);
#pragma unroll
      for (int i = 0; i < inputs; ++i) {
        const unsigned first[4] = {low[4 * i], high[4 * i], low[4 * i + 1], high[4 * i + 1]};
        const unsigned second[4] = {low[4 * i + 2], high[4 * i + 2], low[4 * i + 3],
                                    high[4 * i + 3]};
        multiply(acc, first, now[h][i].x, now[h][i].y);
        multiply(acc, second, now[h][i].z, now[h][i].w);
      }
    }
    __syncwarp(); // all lanes have read the stage
    load(r + stages<LINES> * k_splits, stage);
    stage = stage + 1 == stages<LINES> ? 0 : stage + 1;
  }

  // Sum the splits, in their order.
  wait_for_copies<0>();
  __syncthreads();
  constexpr int pitch = block_rows + 1;
  auto* parts = reinterpret_cast<float*>(shared); // [k_splits][8][pitch]
#pragma unroll
  for (int i = 0; i < 4; ++i)
    parts[(warp * 8 + t * 2 + i % 2) * pitch + g + (i / 2) * 8] = acc[i];
  epilogue.finish(parts, [&](int row) { return sizeof(W) == 1 ? scales[row] : 1.0F; });
}

template <sums_to TO, int LINES, class W, class Y>
void launch(const __nv_bfloat16* x, const W* w, const float* scales, const skinny_ends& ends, int m,
            int n, int lines, cudaStream_t stream) {
  constexpr int bytes = k_splits * bytes_ahead<LINES>;
  static const bool raised = [] {
    HEXGEN_CUDA_CHECK(cudaFuncSetAttribute(skinny_kernel<TO, LINES, W, Y>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)raised;
  launch_dependent(skinny_kernel<TO, LINES, W, Y>,
                   dim3(static_cast<unsigned>((n + block_rows - 1) / block_rows)), k_splits * 32,
                   bytes, stream, x, w, scales, ends, m, n, lines);
}

template <sums_to TO, class Y, class W>
void launch(const __nv_bfloat16* x, const W* w, const float* scales, const skinny_ends& ends, int m,
            int n, int k, cudaStream_t stream) {
  const int lines = k / line_values<W>;
  if (lines % 2 == 0)
    launch<TO, 2, W, Y>(x, w, scales, ends, m, n, lines, stream);
  else
    launch<TO, 1, W, Y>(x, w, scales, ends, m, n, lines, stream);
}

template <sums_to TO, class Y>
void run(const __nv_bfloat16* x, const weight_matrix& w, const skinny_ends& ends, int m,
         const shared_sums& scratch, cudaStream_t stream) {
  if (w.type == gpu_weights::bf16 && m > 8) {
    skinny_broad(x, w, ends, TO, std::is_same_v<Y, float>, m, scratch, stream);
    return;
  }
  const auto outputs = static_cast<std::size_t>(TO == sums_to::swiglu ? w.rows / 2 : w.rows);
  for_tiles(w, x, ends, outputs * sizeof(Y), m,
            [&](const __nv_bfloat16* rows, const skinny_ends& at, int count) {
              if (w.type == gpu_weights::int4)
                skinny_int4(rows, w, at, TO, std::is_same_v<Y, float>, count, stream);
              else if (w.type == gpu_weights::fp8)
                launch<TO, Y>(rows, w.bytes(), w.row_scales(), at, count, w.rows, w.columns,
                              stream);
              else
                launch<TO, Y>(rows, w.bf16(), nullptr, at, count, w.rows, w.columns, stream);
            });
}

} // namespace

int skinny_rows_max(const weight_matrix& w, const shared_sums& scratch) {
  if (static_cast<int>(w.row_bytes()) % line != 0)
    return 0;
  if (w.type != gpu_weights::bf16)
    return widest_few_rows;
  return scratch.blocks > 0 && w.rows % broad_rows == 0 ? broad_inputs : 8;
}

std::size_t shared_sum_floats(int blocks) {
  return static_cast<std::size_t>(2 * blocks) * broad_inputs * broad_rows;
}

void skinny(const __nv_bfloat16* x, const weight_matrix& w, __nv_bfloat16* y, int m,
            const pending_norm& norm, const shared_sums& scratch, cudaStream_t stream) {
  run<sums_to::rows, __nv_bfloat16>(x, w, {y, norm, {}}, m, scratch, stream);
}

void skinny(const __nv_bfloat16* x, const weight_matrix& w, float* y, int m,
            const pending_norm& norm, const shared_sums& scratch, cudaStream_t stream) {
  run<sums_to::rows, float>(x, w, {y, norm, {}}, m, scratch, stream);
}

void skinny_swiglu(const __nv_bfloat16* x, const weight_matrix& w, __nv_bfloat16* out, int m,
                   const pending_norm& norm, const shared_sums& scratch, cudaStream_t stream) {
  run<sums_to::swiglu, __nv_bfloat16>(x, w, {out, norm, {}}, m, scratch, stream);
}

void skinny_add(const __nv_bfloat16* x, const weight_matrix& w, const residual& to, int m,
                const shared_sums& scratch, cudaStream_t stream) {
  run<sums_to::hidden, __nv_bfloat16>(x, w, {nullptr, {}, to}, m, scratch, stream);
}

} // namespace hexgen::compute::cuda
