// Programmatic dependent launch: a kernel starts while its predecessor ends, fetches what does not
// depend on it (weights), and only then waits.
#pragma once

#include "compute/cuda/error.hpp"

#include <utility>

namespace hexgen::compute::cuda {

/// Device side: every kernel that is launched by launch_dependent() calls this before it touches
/// anything an earlier kernel wrote or reads. Earlier kernels have then finished. The compiler may
/// still move reads through `const __restrict__` pointers in front of it: no LDG but those meant
/// may precede ACQBULK in the machine code.
__device__ __forceinline__ void wait_for_predecessor() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Device side: from here on the next kernel may take the places that this one leaves free.
__device__ __forceinline__ void allow_successor() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Host side. Throws cuda_error.
template <class... Parameters, class... Arguments>
void launch_dependent(void (*kernel)(Parameters...), dim3 grid, unsigned block,
                      std::size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(block);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  HEXGEN_CUDA_CHECK(
      cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...));
}

} // namespace hexgen::compute::cuda
