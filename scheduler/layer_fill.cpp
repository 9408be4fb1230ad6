#include "scheduler/layer_fill.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace hexgen::scheduler {

namespace {

constexpr double rounding = 1 + 1e-12; // a bound that a stage reaches exactly admits it

int layers_within(const fill_stage& stage, double bound) {
  const double count = bound / stage.busy_per_layer * rounding;
  return count >= stage.cap ? stage.cap : static_cast<int>(count);
}

} // namespace

void order_stages(const std::vector<fill_stage>& stages, std::vector<int>& order) {
  order.resize(stages.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return stages[static_cast<std::size_t>(a)].per_layer <
           stages[static_cast<std::size_t>(b)].per_layer;
  });
}

bool fill_layers(const std::vector<fill_stage>& stages, const std::vector<int>& order, int layers,
                 double bound, std::vector<int>& into) {
  into.assign(stages.size(), 0);
  for (const int number : order) {
    const auto j = static_cast<std::size_t>(number);
    into[j] = std::min(layers, layers_within(stages[j], bound));
    layers -= into[j];
    if (layers == 0)
      return true;
  }
  return false;
}

double smallest_bottleneck(const std::vector<fill_stage>& stages, int layers) {
  int room = 0;
  double rate = 0, most = 0;
  for (const auto& stage : stages) {
    room += stage.cap;
    if (stage.cap > 0) {
      rate += 1 / stage.busy_per_layer;
      most = std::max(most, stage.busy_per_layer * stage.cap);
    }
  }
  if (room < layers)
    return std::numeric_limits<double>::infinity();
  const auto fits = [&](double bound) {
    int held = 0;
    for (const auto& stage : stages)
      held += stage.cap > 0 ? layers_within(stage, bound) : 0;
    return held >= layers;
  };
  double low = layers / rate * (1 - 1e-9), high = most;
  if (fits(low))
    return low;
  for (int i = 0; i < 40 && high - low > 1e-9 * high; ++i) {
    const double middle = (low + high) / 2;
    (fits(middle) ? high : low) = middle;
  }
  // The bound is some stage's time at a whole number of layers: the largest not above `high`.
  double exact = 0;
  for (const auto& stage : stages)
    if (stage.cap > 0)
      exact = std::max(exact, layers_within(stage, high) * stage.busy_per_layer);
  return exact;
}

} // namespace hexgen::scheduler
