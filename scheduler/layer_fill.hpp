// How many layers each stage of a fixed list gets.
#pragma once

#include <vector>

namespace hexgen::scheduler {

/// Stages in pipeline order: seconds that a layer adds to a request's latency, seconds that it
/// takes of the stage, and layers that fit.
struct fill_stage {
  double per_layer = 0;
  double busy_per_layer = 0;
  int cap = 0;
};

/// Least total time: the quickest stages are filled first, each up to its cap and to
/// floor(bound / busy_per_layer). Stages may get none. Empty when the layers do not fit.
/// `order`: stage numbers by rising per_layer.
[[nodiscard]] bool fill_layers(const std::vector<fill_stage>& stages, const std::vector<int>& order,
                               int layers, double bound, std::vector<int>& into);

/// Stage numbers by rising per_layer, ties by position.
void order_stages(const std::vector<fill_stage>& stages, std::vector<int>& order);

/// The smallest slowest-stage time with which the layers fit; infinite when they do not.
[[nodiscard]] double smallest_bottleneck(const std::vector<fill_stage>& stages, int layers);

} // namespace hexgen::scheduler
