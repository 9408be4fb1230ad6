#include "compute/cuda/gemm.hpp"

#include "compute/cuda/device_buffer.hpp"
#include "compute/timed_choices.hpp"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace hexgen::compute::cuda {
namespace {

/// The library's entry points that are used here.
struct library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtMatmulAlgoCheck) check;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
};

template <class F>
void load(void* handle, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(handle, name));
  if (function == nullptr)
    throw std::runtime_error(std::string("libcublasLt has no ") + name);
}

const library& cublaslt() {
  static const library lib = [] {
    void* handle = nullptr;
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"})
      if ((handle = dlopen(name, RTLD_NOW | RTLD_LOCAL)) != nullptr)
        break;
    if (handle == nullptr)
      throw std::runtime_error(
          "libcublasLt was not found: install the CUDA toolkit or `pip install nvidia-cublas` and "
          "put its lib folder on LD_LIBRARY_PATH");
    library l{};
    load(handle, "cublasLtCreate", l.create);
    load(handle, "cublasLtDestroy", l.destroy);
    load(handle, "cublasLtGetVersion", l.version);
    load(handle, "cublasLtMatmulAlgoCheck", l.check);
    load(handle, "cublasLtMatmul", l.matmul);
    load(handle, "cublasLtMatmulAlgoGetHeuristic", l.heuristic);
    load(handle, "cublasLtMatmulDescCreate", l.desc_create);
    load(handle, "cublasLtMatmulDescDestroy", l.desc_destroy);
    load(handle, "cublasLtMatmulDescSetAttribute", l.desc_set);
    load(handle, "cublasLtMatrixLayoutCreate", l.layout_create);
    load(handle, "cublasLtMatrixLayoutDestroy", l.layout_destroy);
    load(handle, "cublasLtMatmulPreferenceCreate", l.preference_create);
    load(handle, "cublasLtMatmulPreferenceDestroy", l.preference_destroy);
    load(handle, "cublasLtMatmulPreferenceSetAttribute", l.preference_set);
    return l;
  }();
  return lib;
}

void check_lt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string(what) + " failed with cuBLAS status " +
                             std::to_string(static_cast<int>(status)));
}

/// Timings hold for a kind of GPU and a version of the library.
std::filesystem::path choices_file() {
  const auto folder = timed_choices::folder();
  int device = 0;
  cudaDeviceProp p{};
  if (folder.empty() || cudaGetDevice(&device) != cudaSuccess ||
      cudaGetDeviceProperties(&p, device) != cudaSuccess)
    return {};
  std::string name = p.name;
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0)
      c = '-';
  return folder / (name + "-cublaslt-" + std::to_string(cublaslt().version()) + ".txt");
}

/// Everything cuBLASLt needs for one shape.
struct plan {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

  plan() = default;
  plan(const plan&) = delete;
  plan& operator=(const plan&) = delete;
  ~plan() {
    const auto& lt = cublaslt();
    if (desc != nullptr)
      lt.desc_destroy(desc);
    for (auto* layout : {w, x, y})
      if (layout != nullptr)
        lt.layout_destroy(layout);
  }
};

} // namespace

struct gemm::impl {
  using key = std::tuple<int, int, int, int, cudaDataType_t>; // m, n, k, y_stride, type of y

  cublasLtHandle_t handle = nullptr;
  device_buffer<unsigned char> workspace;
  bool timed = true;
  timed_choices choices{choices_file()};
  std::map<key, std::unique_ptr<plan>> plans;

  void run(const void* x, const void* w, void* y, const key& shape, cudaStream_t stream) {
    auto& p = plans[shape];
    if (!p)
      p = make(x, w, y, shape, stream);
    multiply(*p, p->algorithm, x, w, y, stream);
  }

  void multiply(const plan& p, const cublasLtMatmulAlgo_t& algorithm, const void* x, const void* w,
                void* y, cudaStream_t stream) {
    const float one = 1.0F;
    const float zero = 0.0F;
    check_lt(cublaslt().matmul(handle, p.desc, &one, w, p.w, x, p.x, &zero, y, p.y, y, p.y,
                               &algorithm, workspace.data(), workspace.bytes(), stream),
             "cublasLtMatmul");
  }

  std::unique_ptr<plan> make(const void* x, const void* w, void* y, const key& shape,
                             cudaStream_t stream) {
    const auto [m, n, k, stride, type] = shape;
    const auto& lt = cublaslt();
    auto p = std::make_unique<plan>();
    // cuBLASLt is column-major: row-major W[n, k] is its k x n, and y[m, n] its n x m.
    check_lt(lt.desc_create(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "matmul descriptor");
    const cublasOperation_t transpose = CUBLAS_OP_T;
    check_lt(lt.desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose),
             "transpose");
    check_lt(lt.layout_create(&p->w, CUDA_R_16BF, static_cast<std::uint64_t>(k),
                              static_cast<std::uint64_t>(n), k),
             "layout of W");
    check_lt(lt.layout_create(&p->x, CUDA_R_16BF, static_cast<std::uint64_t>(k),
                              static_cast<std::uint64_t>(m), k),
             "layout of x");
    check_lt(lt.layout_create(&p->y, type, static_cast<std::uint64_t>(n),
                              static_cast<std::uint64_t>(m), stride),
             "layout of y");
    const std::string name = std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) +
                             "/" + std::to_string(stride) + ":" +
                             std::to_string(static_cast<int>(type));
    if (timed && use_kept(*p, name))
      return p;
    cublasLtMatmulPreference_t preference = nullptr;
    check_lt(lt.preference_create(&preference), "preference");
    const std::size_t bytes = workspace.bytes();
    lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
    constexpr int candidates = 16;
    cublasLtMatmulHeuristicResult_t found[candidates];
    int count = 0;
    const auto status = lt.heuristic(handle, p->desc, p->w, p->x, p->y, p->y, preference,
                                     timed ? candidates : 1, found, &count);
    lt.preference_destroy(preference);
    check_lt(status, "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0)
      throw std::runtime_error("cuBLASLt has no algorithm for m=" + std::to_string(m) +
                               " n=" + std::to_string(n) + " k=" + std::to_string(k));
    p->algorithm = found[0].algo;
    if (count > 1)
      p->algorithm = fastest(*p, found, count, x, w, y, stream);
    if (timed)
      choices.keep(name, std::as_bytes(std::span(&p->algorithm, 1)));
    return p;
  }

  /// The algorithm of an earlier start, if the library still takes it.
  bool use_kept(plan& p, const std::string& name) {
    const auto kept = choices.find(name, sizeof p.algorithm);
    if (!kept)
      return false;
    std::memcpy(&p.algorithm, kept->data(), kept->size());
    cublasLtMatmulHeuristicResult_t needs{};
    return cublaslt().check(handle, p.desc, p.w, p.x, p.y, p.y, &p.algorithm, &needs) ==
               CUBLAS_STATUS_SUCCESS &&
           needs.workspaceSize <= workspace.bytes();
  }

  cublasLtMatmulAlgo_t fastest(const plan& p, const cublasLtMatmulHeuristicResult_t* found,
                               int count, const void* x, const void* w, void* y,
                               cudaStream_t stream) {
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    HEXGEN_CUDA_CHECK(cudaEventCreate(&begin));
    HEXGEN_CUDA_CHECK(cudaEventCreate(&end));
    constexpr int rounds = 5;
    float best = 0;
    int chosen = 0;
    for (int i = 0; i < count; ++i) {
      float least = 0;
      for (int r = 0; r <= rounds; ++r) { // the first is a warm-up
        // In a step the weights come from memory: write over what the last round left in the cache.
        HEXGEN_CUDA_CHECK(cudaMemsetAsync(workspace.data(), 0, workspace.bytes(), stream));
        HEXGEN_CUDA_CHECK(cudaEventRecord(begin, stream));
        multiply(p, found[i].algo, x, w, y, stream);
        HEXGEN_CUDA_CHECK(cudaEventRecord(end, stream));
        HEXGEN_CUDA_CHECK(cudaEventSynchronize(end));
        float ms = 0;
        HEXGEN_CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
        if (r > 0)
          least = r == 1 ? ms : std::min(least, ms);
      }
      if (i == 0 || least < best) {
        best = least;
        chosen = i;
      }
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return found[chosen].algo;
  }
};

gemm::gemm(std::size_t workspace_bytes) : impl_(std::make_unique<impl>()) {
  check_lt(cublaslt().create(&impl_->handle), "cublasLtCreate");
  impl_->workspace = device_buffer<unsigned char>(workspace_bytes);
}

gemm::~gemm() {
  impl_->plans.clear();
  cublaslt().destroy(impl_->handle);
}

void gemm::run(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int m, int n,
               int k, int y_stride, cudaStream_t stream) {
  impl_->run(x, w, y, {m, n, k, y_stride, CUDA_R_16BF}, stream);
}

void gemm::run(const __nv_bfloat16* x, const __nv_bfloat16* w, float* y, int m, int n, int k,
               int y_stride, cudaStream_t stream) {
  impl_->run(x, w, y, {m, n, k, y_stride, CUDA_R_32F}, stream);
}

void gemm::set_timed(bool timed) {
  impl_->timed = timed;
}

} // namespace hexgen::compute::cuda
