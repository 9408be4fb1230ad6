// Which kernels this machine can run, and which were asked for.
#include "compute/cpu/kernels.hpp"
#include "compute/executor.hpp"

namespace hexgen::compute {
std::vector<std::string> cpu_levels() {
  return {};
}
void set_cpu_level(const std::string&) {}
const kernel_table& fast_kernels() {
  return reference_kernels();
}
} // namespace hexgen::compute
