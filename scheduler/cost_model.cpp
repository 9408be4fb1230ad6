#include "scheduler/cost_model.hpp"

#include <algorithm>
#include <cmath>

namespace hexgen::scheduler {

cost_model::cost_model(const pool& pool, const config::model_shape& model)
    : pool_(pool), model_(model) {
  for (const int degree : {1, 2, 4, 8})
    if (degree <= model.kv_heads && model.heads % degree == 0 && model.kv_heads % degree == 0)
      degrees_.push_back(degree);
}

double cost_model::busy(const std::vector<int>& devices, int layers, stage_position where,
                        int prompt, int output) const {
  const auto cost = stage(devices, layers, where, prompt, output);
  return cost.compute_s + cost.tensor_parallel_s;
}

double cost_model::least_busy(const std::vector<int>& devices, int layers, int prompt,
                              int output) const {
  return busy(devices, layers, {}, prompt, output);
}

std::vector<stage_cost> price_stages(const cost_model& costs, const pipeline& line, int prompt,
                                     int output) {
  std::vector<stage_cost> found;
  for (std::size_t j = 0; j < line.size(); ++j) {
    const stage_position where{j == 0, j + 1 == line.size()};
    auto cost = costs.stage(line[j].devices, line[j].layers, where, prompt, output);
    cost.pipeline_s = where.last ? costs.way_back(line[j].devices, line[0].devices, output)
                                 : costs.hop(line[j].devices, line[j + 1].devices, prompt, output);
    found.push_back(cost);
  }
  return found;
}

pipeline_time time_pipeline(const cost_model& costs, const pipeline& line, int prompt, int output) {
  pipeline_time time;
  const auto prices = price_stages(costs, line, prompt, output);
  for (std::size_t j = 0; j < line.size(); ++j) {
    const double here = prices[j].compute_s + prices[j].tensor_parallel_s;
    time.latency_s += here + prices[j].pipeline_s;
    time.total_s += here;
    const stage_position where{j == 0, j + 1 == line.size()};
    time.bottleneck_s = std::max(
        time.bottleneck_s, costs.busy(line[j].devices, line[j].layers, where, prompt, output));
  }
  return time;
}

std::vector<violation> check_pipelines(const cost_model& costs, const std::vector<pipeline>& lines,
                                       int prompt, int output) {
  std::vector<violation> found;
  const auto& pool = costs.devices();
  std::vector<bool> used(static_cast<std::size_t>(pool.devices()), false);
  for (const auto& line : lines) {
    int next = 0;
    const auto prices = price_stages(costs, line, prompt, output);
    for (std::size_t j = 0; j < line.size(); ++j) {
      const auto& devices = line[j].devices;
      const auto leader = devices.empty() ? std::string() : pool.id(devices.front());
      if (line[j].first_layer != next)
        found.push_back({leader, "layers in order", static_cast<double>(next),
                         static_cast<double>(line[j].first_layer)});
      next = line[j].first_layer + line[j].layers;
      for (const int device : devices) {
        if (used[static_cast<std::size_t>(device)])
          found.push_back({pool.id(device), "used once", 1, 2});
        used[static_cast<std::size_t>(device)] = true;
        if (prices[j].memory_bytes > costs.room(device) * (1 + 1e-12))
          found.push_back(
              {pool.id(device), "memory_bytes", prices[j].memory_bytes, costs.room(device)});
      }
      if (!std::isfinite(prices[j].pipeline_s))
        found.push_back({leader, "link to the next stage", 1, 0});
      if (!std::isfinite(prices[j].tensor_parallel_s))
        found.push_back({leader, "link inside the stage", 1, 0});
    }
    if (next != costs.model().layers)
      found.push_back(
          {"", "layers", static_cast<double>(costs.model().layers), static_cast<double>(next)});
  }
  return found;
}

} // namespace hexgen::scheduler
