#include "compute/cuda/error.hpp"

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
  throw cuda_error(std::string(call) + " failed: " + cudaGetErrorString(status) + " (" + file +
                       ":" + std::to_string(line) + ")",
                   !recoverable);
}

} // namespace hexgen::compute::cuda
