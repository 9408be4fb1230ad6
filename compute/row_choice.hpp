// How one row of logits becomes a token, where that takes nothing but the logits.
#pragma once

namespace hexgen::compute {

/// Means what sampling_params' fields of the same names mean; a device that chooses by it gives the
/// token that sequence_sampler::next() would.
struct row_choice {
  double uniform = 0;    // in [0, 1): the draw of this position
  float temperature = 0; // below 1e-5: the likeliest token
  float top_p = 1;
  float min_p = 0;
  int top_k = 0;        // 0: off; at most most_top_k
  bool on_host = false; // not chosen by the device: the logits are wanted
};

/// Longer lists are drawn from on the host.
inline constexpr int most_top_k = 1024;

} // namespace hexgen::compute
