// The GPU backend's functions in a program that was built without CUDA.
#include "compute/cuda_backend.hpp"

#include <stdexcept>

namespace hexgen::compute {
namespace {

constexpr const char* reason = "this program was built without CUDA: configure with cmake "
                               "-DHEXGEN_CUDA=ON where the CUDA toolkit is installed";

} // namespace

bool built_with_cuda() {
  return false;
}

std::vector<gpu_info> list_gpus(std::string& why) {
  why = reason;
  return {};
}

executor_memory gpu_executor_memory(const model_config&, const shard&, const executor_options&,
                                    const gpu_options&) {
  throw std::runtime_error(reason);
}

std::unique_ptr<gpu_executor> make_gpu_executor(std::shared_ptr<const model_file>, const shard&,
                                                const executor_options&, const gpu_options&) {
  throw std::runtime_error(reason);
}

} // namespace hexgen::compute
