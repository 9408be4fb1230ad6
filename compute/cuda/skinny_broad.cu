// bf16 products of more than a tile's 8 rows, on a warp group's tensor core instructions: the
// multiprocessors share the matrix evenly, in runs of lines that begin and end anywhere in a tile
// of 64 rows, so that all end together however few tiles there are. The parts of a tile that
// several blocks share are added up by the last.
#include "compute/cuda/skinny_ends.cuh"
#include "compute/cuda/tensor_core.cuh"

#include <algorithm>
#include <type_traits>

namespace hexgen::compute::cuda {
namespace {

constexpr int threads = 128;
constexpr int line = 128; // bytes
constexpr int line_values = line / 2;

constexpr int width = broad_inputs; // rows of x: past m they repeat the last, and end nowhere
static_assert(width == threads / 8);

/// A stage of the pipeline has LINES times a line of each of w's rows and then of x's. Two blocks
/// fit a multiprocessor.
template <int LINES>
constexpr int stage_bytes = (broad_rows + width) * line* LINES;
template <int LINES>
constexpr int stages = (112 << 10) / stage_bytes<LINES>;

/// Where the lines of a tile begin, for a warp group: rows of 128 bytes, their 16-byte chunks XORed
/// with the row as by at().
__device__ __forceinline__ std::uint64_t lines_at(const void* p) {
  constexpr std::uint64_t eight_rows = 8 * line / 16;
  constexpr std::uint64_t swizzled = 1ULL << 62;
  return (shared_address(p) & 0x3ffffU) >> 4 | 1ULL << 16 | eight_rows << 32 | swizzled;
}

/// d[64 x 16] += a[64 x 16] b[16 x 16]^T by four warps. Asynchronous.
__device__ __forceinline__ void multiply_group(float (&d)[8], std::uint64_t a, std::uint64_t b) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
               "{%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, 1, 1, 1, 0, 0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
                 "+f"(d[7])
               : "l"(a), "l"(b));
#else
  __trap(); // see has_broad_products()
#endif
}

__device__ __forceinline__ void begin_multiplying() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); // what threads have copied
  __syncthreads();
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

/// Queues what was begun; wait_for_products() waits for it.
__device__ __forceinline__ void commit_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_products(float (&d)[8]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.wait_group.sync.aligned 0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
                 "+f"(d[7])::"memory");
#endif
}

/// A kernel's runs, LINES lines of a tile's rows each, dealt out evenly to its blocks.
struct deal {
  unsigned runs, blocks;
  unsigned each; // of a tile

  [[nodiscard]] __device__ unsigned begin(unsigned block) const {
    return static_cast<unsigned>(static_cast<unsigned long long>(runs) * block / blocks);
  }
  [[nodiscard]] __device__ unsigned owner(unsigned run) const {
    return static_cast<unsigned>(((run + 1ULL) * blocks - 1) / runs);
  }
};

/// As with skinny_kernel() x is no __restrict__: it may be read only after the wait.
template <sums_to TO, int LINES, class Y>
__global__ void __launch_bounds__(threads, 2)
    broad_kernel(const __nv_bfloat16* x, const __nv_bfloat16* __restrict__ w,
                 const __grid_constant__ skinny_ends ends, float* parts, unsigned* ended,
                 const deal runs, int m, int n) {
  extern __shared__ __align__(1024) unsigned char shared[];
  __shared__ float divided[width];
  __shared__ bool last;
  allow_successor();
  constexpr int ahead = stages<LINES> - 1;
  constexpr int all_stages = stages<LINES> * stage_bytes<LINES>;
  constexpr int values = width / 2; // sums of a thread
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const unsigned begin = runs.begin(blockIdx.x);
  const unsigned end = runs.begin(blockIdx.x + 1);
  const unsigned row_bytes = runs.each * LINES * line;

  // A thread copies a chunk of every 16th row.
  const int row = threadIdx.x / 8;
  const int chunk = threadIdx.x % 8;
  struct loading {
    unsigned run;              // the next to load,
    unsigned at;               // its first byte in a row,
    const unsigned char* from; // and in this thread's first row of w,
    int stage;                 // and where it goes to
  };
  loading next{begin, begin % runs.each * LINES * line,
               reinterpret_cast<const unsigned char*>(w) +
                   static_cast<std::size_t>(begin / runs.each * broad_rows + row) * row_bytes +
                   chunk * 16,
               0};
  next.from += next.at;
  auto advance = [&](loading& l) {
    ++l.run;
    l.at += LINES * line;
    l.from += LINES * line;
    if (l.at == row_bytes) {
      l.at = 0;
      l.from += static_cast<std::size_t>(broad_rows - 1) * row_bytes;
    }
    l.stage = l.stage + stage_bytes<LINES> == all_stages ? 0 : l.stage + stage_bytes<LINES>;
  };
  unsigned char* const to = shared + row * line + (chunk ^ (row & 7)) * 16;
  auto load_weights = [&](const loading& l) {
    const unsigned char* from = l.from;
#pragma unroll
    for (int i = 0; i < broad_rows / 16; ++i, from += 16 * row_bytes)
#pragma unroll
      for (int k = 0; k < LINES; ++k)
        copy_16(to + l.stage + (k * (broad_rows + width) + i * 16) * line, from + k * line);
  };
  const unsigned char* const input = reinterpret_cast<const unsigned char*>(x) +
                                     static_cast<std::size_t>(min(row, m - 1)) * row_bytes +
                                     chunk * 16;
  auto load_inputs = [&](const loading& l) {
#pragma unroll
    for (int k = 0; k < LINES; ++k)
      copy_16(to + l.stage + (k * (broad_rows + width) + broad_rows) * line,
              input + l.at + k * line);
  };
  loading first = next;
#pragma unroll
  for (int s = 0; s < ahead; ++s) {
    if (next.run < end)
      load_weights(next); // they do not depend on the kernel before
    commit_copies();
    advance(next);
  }
  wait_for_predecessor();
#pragma unroll
  for (int s = 0; s < ahead; ++s) {
    if (first.run < end)
      load_inputs(first);
    commit_copies();
    advance(first);
  }
  if (ends.norm.squares != nullptr) {
    constexpr int each = threads / width; // of a row, neighbours
    const int column = threadIdx.x / each;
    const int quads = static_cast<int>(runs.each) * LINES * line_values / tile_rows / 4;
    float total = 0;
    if (column < m) {
      const auto* from = reinterpret_cast<const float4*>(ends.norm.squares) +
                         static_cast<std::size_t>(column) * quads;
#pragma unroll 8
      for (int i = threadIdx.x % each; i < quads; i += each) {
        const float4 v = from[i];
        total += v.x + v.y + (v.z + v.w);
      }
    }
#pragma unroll
    for (int offset = each / 2; offset > 0; offset /= 2)
      total += __shfl_xor_sync(0xffffffffU, total, offset);
    if (threadIdx.x % each == 0)
      divided[column] =
          rsqrtf(total / static_cast<float>(runs.each * LINES * line_values) + ends.norm.epsilon);
  }

  float acc[values] = {};
  unsigned tile = begin / runs.each;
  unsigned in = begin % runs.each; // the next run's place in the tile
  unsigned first_in = in;          // of this block
  const int g = lane / 4;
  const int t = lane % 4;

  /// Brings the sums of the runs [first_in, in) of the tile to their end.
  auto finish = [&] {
    // acc[4 j + 2 i + c] is of row 8 i + g of the warp's 16 and column 8 j + 2 t + c.
    const int first_row = static_cast<int>(tile) * broad_rows + warp * tile_rows + g;
    auto each_value = [&](const auto& f) {
#pragma unroll
      for (int v = 0; v < values; ++v)
        f(v, v / 4 * 8 + t * 2 + v % 2, first_row + v / 2 % 2 * 8);
    };
    float old[TO == sums_to::hidden ? values : 1];
    if constexpr (TO == sums_to::hidden)
      each_value([&](int v, int column, int r) {
        old[v] = column < m ? ends.add.hidden[static_cast<std::size_t>(column) * n + r] : 0.0F;
      });
    if (first_in != 0 || in != runs.each) {
      // A block has at most one part that begins in a tile and one that ends in one.
      auto part_of = [&](unsigned block, bool begins_inside) {
        return parts +
               static_cast<std::size_t>(2 * block + (begins_inside ? 0 : 1)) * values * threads +
               threadIdx.x;
      };
      float* part = part_of(blockIdx.x, first_in != 0);
#pragma unroll
      for (int v = 0; v < values; ++v)
        part[v * threads] = acc[v];
      const unsigned first = runs.owner(tile * runs.each);
      const unsigned final = runs.owner((tile + 1) * runs.each - 1);
      __threadfence();
      __syncthreads();
      if (threadIdx.x == 0) {
        last = atomicAdd(ended + tile, 1U) == final - first;
        if (last)
          ended[tile] = 0; // for the next kernel
      }
      __syncthreads();
      if (!last)
        return;
      __threadfence();
#pragma unroll
      for (int v = 0; v < values; ++v)
        acc[v] = 0;
      for (unsigned b = first; b <= final; ++b) {
        const float* other = part_of(b, runs.begin(b) > tile * runs.each);
        float more[values];
#pragma unroll
        for (int v = 0; v < values; ++v)
          more[v] = __ldcg(other + v * threads);
#pragma unroll
        for (int v = 0; v < values; ++v)
          acc[v] += more[v];
      }
    }
    if (ends.norm.squares != nullptr)
      each_value([&](int v, int column, int) { acc[v] *= divided[column]; });
    if constexpr (TO == sums_to::hidden) {
      const float weight[2] = {ends.add.weight[first_row], ends.add.weight[first_row + 8]};
      each_value([&](int v, int column, int r) {
        acc[v] += old[v];
        if (column < m) {
          const std::size_t at = static_cast<std::size_t>(column) * n + r;
          ends.add.hidden[at] = acc[v];
          ends.add.weighted[at] = __float2bfloat16(acc[v] * weight[v / 2 % 2]);
        }
      });
#pragma unroll
      for (int v = 0; v < values; v += v % 2 == 0 ? 1 : 3) {
        float squares = acc[v] * acc[v] + acc[v + 2] * acc[v + 2];
#pragma unroll
        for (int offset = 16; offset >= 4; offset /= 2)
          squares += __shfl_xor_sync(0xffffffffU, squares, offset);
        const int column = v / 4 * 8 + t * 2 + v % 2;
        if (g == 0 && column < m)
          ends.add.squares[(static_cast<std::size_t>(column) * n + first_row) / tile_rows] =
              squares;
      }
    } else {
      each_value([&](int v, int column, int r) {
        std::size_t at = static_cast<std::size_t>(column) * n + r;
        float value = acc[v];
        bool mine = column < m;
        if constexpr (TO == sums_to::swiglu) {
          const float up = __shfl_xor_sync(0xffffffffU, value, 4); // of the next row
          value = value / (1.0F + __expf(-value)) * up;
          mine = mine && g % 2 == 0;
          at /= 2;
        }
        if (mine)
          static_cast<Y*>(ends.y)[at] = static_cast<Y>(value);
      });
    }
  };

  int at_stage = 0;
  for (unsigned run = begin; run < end; ++run) {
    wait_for_copies<ahead - 1>();
    begin_multiplying(); // all threads have waited for the last run's products, too
#pragma unroll
    for (int l = 0; l < LINES; ++l) {
      const unsigned char* rows = shared + at_stage + l * (broad_rows + width) * line;
      const std::uint64_t a = lines_at(rows);
      const std::uint64_t b = lines_at(rows + broad_rows * line);
#pragma unroll
      for (int k = 0; k < line_values / 16; ++k)
        multiply_group(acc, a + 2 * k, b + 2 * k);
    }
    commit_products();
    if (next.run < end) {
      load_weights(next);
      load_inputs(next);
    }
    commit_copies();
    advance(next);
    at_stage = at_stage + stage_bytes<LINES> == all_stages ? 0 : at_stage + stage_bytes<LINES>;
    wait_for_products(acc);
    ++in;
    if (in == runs.each || run + 1 == end) {
      finish();
#pragma unroll
      for (int v = 0; v < values; ++v)
        acc[v] = 0;
      in = first_in = 0;
      ++tile;
    }
  }
}

template <sums_to TO, int LINES, class Y>
void launch(const __nv_bfloat16* x, const weight_matrix& w, const skinny_ends& ends, int m,
            const shared_sums& scratch, cudaStream_t stream) {
  constexpr int bytes = stages<LINES> * stage_bytes<LINES>;
  static const bool raised = [] {
    HEXGEN_CUDA_CHECK(cudaFuncSetAttribute(broad_kernel<TO, LINES, Y>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    return true;
  }();
  (void)raised;
  deal runs{};
  runs.each = static_cast<unsigned>(w.columns / (LINES * line_values));
  runs.runs = static_cast<unsigned>(w.rows / broad_rows) * runs.each;
  runs.blocks = std::min(static_cast<unsigned>(scratch.blocks), runs.runs);
  launch_dependent(broad_kernel<TO, LINES, Y>, dim3(runs.blocks), threads, bytes, stream, x,
                   w.bf16(), ends, scratch.parts, scratch.ended, runs, m, w.rows);
}

template <sums_to TO, class Y>
void launch(const __nv_bfloat16* x, const weight_matrix& w, const skinny_ends& ends, int m,
            const shared_sums& scratch, cudaStream_t stream) {
  if (w.columns / line_values % 2 == 0)
    launch<TO, 2, Y>(x, w, ends, m, scratch, stream);
  else
    launch<TO, 1, Y>(x, w, ends, m, scratch, stream);
}

} // namespace

bool has_broad_products() {
  cudaFuncAttributes kernel{};
  HEXGEN_CUDA_CHECK(cudaFuncGetAttributes(&kernel, broad_kernel<sums_to::rows, 1, __nv_bfloat16>));
  return kernel.binaryVersion == 90 && kernel.ptxVersion == 90; // not made from older code
}

void skinny_broad(const __nv_bfloat16* x, const weight_matrix& w, const skinny_ends& ends,
                  sums_to to, bool to_float, int m, const shared_sums& scratch,
                  cudaStream_t stream) {
  if (to == sums_to::swiglu)
    launch<sums_to::swiglu, __nv_bfloat16>(x, w, ends, m, scratch, stream);
  else if (to == sums_to::hidden)
    launch<sums_to::hidden, __nv_bfloat16>(x, w, ends, m, scratch, stream);
  else if (to_float)
    launch<sums_to::rows, float>(x, w, ends, m, scratch, stream);
  else
    launch<sums_to::rows, __nv_bfloat16>(x, w, ends, m, scratch, stream);
}

} // namespace hexgen::compute::cuda
