#include "scheduler/paper_cost.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hexgen::scheduler {

namespace {

constexpr double gib = 1024.0 * 1024 * 1024;
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double batch = 1;

} // namespace

paper_cost::paper_cost(const pool& pool, const config::model_shape& model, int prompt, int output,
                       bool kv_sharded)
    : cost_model(pool, model), prompt_(prompt), output_(output), kv_sharded_(kv_sharded) {}

/// One superstep of the busiest device: to all others, 1/n of the bytes each. An all-reduce is
/// two (reduce-scatter, all-gather).
double paper_cost::all_reduce(const std::vector<int>& devices, double bytes) const {
  double most = 0;
  for (const int a : devices) {
    double sum = 0;
    for (const int b : devices) {
      if (a == b)
        continue;
      const auto link = pool_.between(a, b);
      sum += link.usable()
                 ? link.alpha_s + bytes / (static_cast<double>(devices.size()) * link.beta)
                 : infinity;
    }
    most = std::max(most, sum);
  }
  return most;
}

stage_cost paper_cost::stage(const std::vector<int>& devices, int layers, stage_position,
                             int prompt, int output) const {
  const double hidden = model_.hidden, bytes = model_.bytes_per_parameter;
  const auto degree = static_cast<double>(devices.size());
  stage_cost cost;
  for (const int device : devices) {
    const auto& kind = pool_.kind(pool_.kind_of(device));
    const double scan = 12 * hidden * hidden * bytes * output / (degree * kind.bandwidth_gbs * 1e9);
    const double flops = 24 * batch * (static_cast<double>(prompt) + output) * hidden * hidden /
                         (degree * kind.fp16_tflops * 1e12);
    cost.compute_s = std::max(cost.compute_s, (scan + flops) * layers);
  }
  if (devices.size() > 1)
    cost.tensor_parallel_s = 4.0 * layers *
                             (all_reduce(devices, batch * prompt * hidden * bytes) +
                              output * all_reduce(devices, batch * hidden * bytes));
  cost.memory_bytes = memory_bytes(static_cast<int>(devices.size()), layers, prompt, output);
  return cost;
}

double paper_cost::hop(const std::vector<int>& from, const std::vector<int>& to, int prompt,
                       int output) const {
  const double token = batch * model_.hidden * model_.bytes_per_parameter;
  double prefill = infinity, decode = infinity;
  for (const int a : from)
    for (const int b : to) {
      const auto link = pool_.between(a, b);
      if (!link.usable())
        continue;
      prefill = std::min(prefill, link.alpha_s + token * prompt / link.beta);
      decode = std::min(decode, link.alpha_s + token / link.beta);
    }
  return prefill + decode * output;
}

double paper_cost::way_back(const std::vector<int>&, const std::vector<int>&, int) const {
  return 0;
}

double paper_cost::memory_bytes(int degree, int layers, int prompt, int output) const {
  const double hidden = model_.hidden, bytes = model_.bytes_per_parameter;
  const double tokens = batch * (static_cast<double>(prompt) + output);
  const double kv = 2 * tokens * hidden * bytes / (kv_sharded_ ? degree : 1);
  return (12 * hidden * hidden * bytes / degree + kv) * layers + 4 * tokens * hidden * bytes;
}

int paper_cost::layer_cap(int kind, int degree, stage_position) const {
  const double fixed = memory_bytes(degree, 0, prompt_, output_);
  const double layer = memory_bytes(degree, 1, prompt_, output_) - fixed;
  const double have = pool_.kind(kind).memory_gib * gib - fixed;
  return have < 0 ? 0 : static_cast<int>(std::min(1e6, std::floor(have / layer)));
}

double paper_cost::room(int device) const {
  return pool_.kind(pool_.kind_of(device)).memory_gib * gib;
}

} // namespace hexgen::scheduler
