#include "actors/data/device_backend.hpp"

#include "compute/cuda_backend.hpp"
#include "compute/shape_model.hpp"

#include <mutex>

namespace hexgen::actors {
namespace {

class cpu_backend final : public device_backend {
public:
  explicit cpu_backend(int threads) : threads_(threads) {}

  [[nodiscard]] compute::executor_memory memory(const executor_request& r) const override {
    return compute::cpu_executor_memory(*r.model, r.part, with_threads(r));
  }
  [[nodiscard]] std::unique_ptr<compute::executor> make(const executor_request& r) const override {
    return compute::make_cpu_executor(filled(r.model), r.part, with_threads(r));
  }
  [[nodiscard]] int measured_prompt_tokens() const override { return 64; }

private:
  [[nodiscard]] compute::executor_options with_threads(const executor_request& r) const {
    auto options = r.options;
    options.threads = threads_;
    return options;
  }
  /// A model of which only the shape is known gets its values once.
  [[nodiscard]] std::shared_ptr<const compute::model_file>
  filled(const std::shared_ptr<const compute::model_file>& model) const {
    const auto* shape = dynamic_cast<const compute::shape_model*>(model.get());
    if (shape == nullptr)
      return model;
    const std::lock_guard guard(mutex_);
    auto values = filled_.lock();
    if (!values) {
      values = shape->filled();
      filled_ = values;
    }
    return values;
  }

  int threads_;
  mutable std::mutex mutex_;
  mutable std::weak_ptr<const compute::model_file> filled_;
};

class cuda_backend final : public device_backend {
public:
  cuda_backend(int ordinal, compute::gpu_weights weights)
      : ordinal_(ordinal), weights_(weights) {}

  [[nodiscard]] compute::executor_memory memory(const executor_request& r) const override {
    return compute::gpu_executor_memory(r.model->config(), r.part, r.options, options_of(r));
  }
  [[nodiscard]] std::unique_ptr<compute::executor> make(const executor_request& r) const override {
    return compute::make_gpu_executor(r.model, r.part, r.options, options_of(r));
  }
  [[nodiscard]] int measured_prompt_tokens() const override { return 512; }

private:
  [[nodiscard]] compute::gpu_options options_of(const executor_request& r) const {
    compute::gpu_options g;
    g.ordinal = ordinal_;
    g.weights = weights_;
    g.max_sequences = r.options.max_logit_rows;
    const int context = r.model->config().context;
    g.max_context = r.max_sequence > 0 ? r.max_sequence : context > 0 ? context : g.max_context;
    g.deterministic = r.deterministic;
    g.random_weights = dynamic_cast<const compute::shape_model*>(r.model.get()) != nullptr;
    return g;
  }

  int ordinal_;
  compute::gpu_weights weights_;
};

} // namespace

std::unique_ptr<device_backend> make_device_backend(const device_options& device) {
  if (device.kind == "cuda")
    return std::make_unique<cuda_backend>(device.ordinal, device.weights);
  return std::make_unique<cpu_backend>(device.threads);
}

} // namespace hexgen::actors
