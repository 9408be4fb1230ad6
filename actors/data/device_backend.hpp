// What a kind of device needs of compute/: its sizes and its executors.
#pragma once

#include "actors/data/device_worker.hpp"

#include <memory>

namespace hexgen::actors {

struct executor_request {
  std::shared_ptr<const compute::model_file> model;
  compute::shard part;
  compute::executor_options options;
  int max_sequence = 0;       // tokens of the longest sequence; 0: the model's own context
  bool deterministic = false; // bits do not depend on the batch (a GPU's choice; a CPU's always)
};

/// Of one device. Thread-safe.
class device_backend {
public:
  virtual ~device_backend() = default;
  /// Without loading. Throws std::runtime_error, file_error.
  [[nodiscard]] virtual compute::executor_memory memory(const executor_request& r) const = 0;
  /// Throws as make_cpu_executor and make_gpu_executor do.
  [[nodiscard]] virtual std::unique_ptr<compute::executor>
  make(const executor_request& r) const = 0;
  /// A prompt long enough to show the device's rate.
  [[nodiscard]] virtual int measured_prompt_tokens() const = 0;
};

/// By the kind: cpu or cuda.
[[nodiscard]] std::unique_ptr<device_backend> make_device_backend(const device_options& device);

} // namespace hexgen::actors
