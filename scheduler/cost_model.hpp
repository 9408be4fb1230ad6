// What planning needs to know of a cost model, whichever mode it is.
#pragma once

#include "config/model_shape.hpp"
#include "config/workload.hpp"
#include "scheduler/placement.hpp"
#include "scheduler/pool.hpp"

#include <string>
#include <vector>

namespace hexgen::scheduler {

/// Seconds of one request in one stage, bytes on its fullest device.
struct stage_cost {
  double compute_s = 0;
  double tensor_parallel_s = 0;
  double pipeline_s = 0; // the hop after the stage, infinite without a link
  double memory_bytes = 0;
};

/// Where a stage stands in its pipeline: the ends hold embedding and head.
struct stage_position {
  bool first = false, last = false;
};

class cost_model {
public:
  virtual ~cost_model() = default;

  /// One request alone through `layers` layers of the stage, the hop to come not included.
  [[nodiscard]] virtual stage_cost stage(const std::vector<int>& devices, int layers,
                                         stage_position where, int prompt, int output) const = 0;
  /// Seconds that one request takes of the stage's time when others share its steps.
  [[nodiscard]] virtual double busy(const std::vector<int>& devices, int layers,
                                    stage_position where, int prompt, int output) const;
  /// The least that busy() could be at any batch: for upper bounds.
  [[nodiscard]] virtual double least_busy(const std::vector<int>& devices, int layers, int prompt,
                                          int output) const;
  /// Seconds that one request spends on one boundary.
  [[nodiscard]] virtual double hop(const std::vector<int>& from, const std::vector<int>& to,
                                   int prompt, int output) const = 0;
  /// From the last stage to the first, 0 where the mode does not charge it.
  [[nodiscard]] virtual double way_back(const std::vector<int>& from, const std::vector<int>& to,
                                        int output) const = 0;
  /// Layers that fit on `degree` devices of one kind of one node.
  [[nodiscard]] virtual int layer_cap(int kind, int degree, stage_position where) const = 0;
  /// Bytes that each device has for weights, KV and activations.
  [[nodiscard]] virtual double room(int device) const = 0;

  [[nodiscard]] const pool& devices() const { return pool_; }
  [[nodiscard]] const config::model_shape& model() const { return model_; }
  /// Degrees that stages may have, rising.
  [[nodiscard]] const std::vector<int>& degrees() const { return degrees_; }

  cost_model(const cost_model&) = delete;
  cost_model& operator=(const cost_model&) = delete;

protected:
  /// Both must outlive the model. `context` is the longest prompt + output to provide for.
  cost_model(const pool& pool, const config::model_shape& model);

  const pool& pool_;
  const config::model_shape& model_;
  std::vector<int> degrees_;
};

/// Stage costs with hops, first to last.
[[nodiscard]] std::vector<stage_cost> price_stages(const cost_model& costs, const pipeline& line,
                                                   int prompt, int output);

struct pipeline_time {
  double latency_s = 0;    // one request alone
  double bottleneck_s = 0; // what it takes of the stage that it takes most of
  double total_s = 0;      // of all stages, hops excluded
};

[[nodiscard]] pipeline_time time_pipeline(const cost_model& costs, const pipeline& line, int prompt,
                                          int output);

/// A broken rule of a pipeline, in numbers.
struct violation {
  std::string device, constraint;
  double need = 0, have = 0;
};

/// Layers complete and in order, devices used once, memory, links.
[[nodiscard]] std::vector<violation> check_pipelines(const cost_model& costs,
                                                     const std::vector<pipeline>& lines, int prompt,
                                                     int output);

} // namespace hexgen::scheduler
