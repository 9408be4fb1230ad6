// The kernel tables of the levels; each lives in a file compiled for it.
#pragma once

#include "compute/cpu/kernels.hpp"

namespace hexgen::compute {

[[nodiscard]] const kernel_table& kernels_avx2();
[[nodiscard]] const kernel_table& kernels_avx512();
[[nodiscard]] const kernel_table& kernels_vnni();
[[nodiscard]] const kernel_table& kernels_amx();

} // namespace hexgen::compute
