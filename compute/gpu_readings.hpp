// What the NVIDIA driver says of its GPUs, without making a CUDA context (NVML, loaded at run
// time).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hexgen::compute {

struct gpu_reading {
  std::string name, driver;
  std::uint64_t memory_bytes = 0, used_bytes = 0;
  unsigned busy_percent = 0;  // of the last sample period
  unsigned temperature_c = 0; // of the chip
  double power_w = 0;
};

/// All GPUs of the machine, in NVML's order. Empty, with the reason in `why`, without a driver or a
/// GPU. Values that a driver does not give stay 0.
[[nodiscard]] std::vector<gpu_reading> read_gpus(std::string& why);

/// "NVIDIA H200, 3 of 139 GiB used, 12 % busy, 34 C, 121 W, driver 580.1".
[[nodiscard]] std::string text_of(const gpu_reading& g);

} // namespace hexgen::compute
