// What kinds of devices there are and what their data sheets (or measurements) say.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace hexgen::config {

/// Measured time of one layer of the profile's model against the tokens in the batch.
struct layer_profile {
  int degree = 1; // tensor-parallel degree it was measured at
  std::vector<double> decode_tokens, decode_ms;
  std::vector<double> prefill_tokens, prefill_ms;
};

struct device_kind {
  std::string name;
  double fp16_tflops = 0;              // dense peak, 10^12 FLOP/s
  double memory_gib = 0;               // 2^30 bytes
  double bandwidth_gbs = 0;            // 10^9 byte/s
  double compute_efficiency = 0.45;    // reached share of the peak in prefill
  double memory_efficiency = 0.8;      // reached share of the bandwidth in decode
  double price_per_hour = 0;           // dollars for one device, 0: unknown
  std::vector<layer_profile> profiles; // of Llama-2-70B fp16 layers
};

/// Kinds by name.
using device_catalogue = std::map<std::string, device_kind>;

/// Reads a `devices.yaml`. Throws config_error.
[[nodiscard]] device_catalogue read_device_catalogue(const std::string& path);
[[nodiscard]] device_catalogue parse_device_catalogue(const std::string& file,
                                                      const std::string& text);

} // namespace hexgen::config
