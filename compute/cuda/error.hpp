// CUDA and cuBLASLt status to exceptions, in one place, with the call and where it stands.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace hexgen::compute::cuda {

/// A CUDA call that failed and left the context usable (no memory, a bad argument).
class cuda_error : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

/// Throws unless `status` is success: cuda_error, or device_lost when the error is sticky.
void check(cudaError_t status, const char* call, const char* file, int line);

} // namespace hexgen::compute::cuda

#define HEXGEN_CUDA_CHECK(call) ::hexgen::compute::cuda::check((call), #call, __FILE__, __LINE__)
