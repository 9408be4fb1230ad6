#include "compute/cuda/error.hpp"

#include "compute/executor.hpp"

namespace hexgen::compute::cuda {

void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess)
    return;
  // These leave the context usable; all others are sticky.
  const bool recoverable = status == cudaErrorMemoryAllocation || status == cudaErrorInvalidValue ||
                           status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver ||
                           status == cudaErrorInvalidDevice ||
                           status == cudaErrorInvalidConfiguration;
  (void)cudaGetLastError();
  const auto what = std::string(call) + " failed: " + cudaGetErrorString(status) + " (" + file +
                    ":" + std::to_string(line) + ")";
  if (recoverable)
    throw cuda_error(what);
  throw device_lost(what);
}

} // namespace hexgen::compute::cuda
