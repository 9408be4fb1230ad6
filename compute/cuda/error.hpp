// CUDA and cuBLASLt status to exceptions, in one place, with the call and where it stands.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace hexgen::compute::cuda {

/// A CUDA call that failed. `sticky`: the context is lost and the process must end.
class cuda_error : public std::runtime_error {
public:
  cuda_error(const std::string& what, bool sticky) : std::runtime_error(what), sticky_(sticky) {}
  [[nodiscard]] bool sticky() const { return sticky_; }

private:
  bool sticky_;
};

/// Throws cuda_error unless `status` is success.
void check(cudaError_t status, const char* call, const char* file, int line);

} // namespace hexgen::compute::cuda

#define HEXGEN_CUDA_CHECK(call) ::hexgen::compute::cuda::check((call), #call, __FILE__, __LINE__)
