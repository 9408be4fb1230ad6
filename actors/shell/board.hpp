// What other threads may see of the router and the coordinator without asking an actor.
#pragma once

#include "actors/core/generation.hpp"

#include <memory>
#include <mutex>
#include <string>

namespace hexgen::actors {

/// Thread-safe. Actors write, the HTTP side reads.
class board {
public:
  void set_model(std::shared_ptr<const served_model> model) {
    const std::lock_guard guard(mutex_);
    model_ = std::move(model);
  }
  void set_not_ready(std::string text) {
    const std::lock_guard guard(mutex_);
    not_ready_ = std::move(text);
  }
  void set_cluster(std::string json) {
    const std::lock_guard guard(mutex_);
    cluster_ = std::move(json);
  }
  void set_metrics(std::string text) {
    const std::lock_guard guard(mutex_);
    metrics_ = std::move(text);
  }
  void set_cluster_metrics(std::string text) {
    const std::lock_guard guard(mutex_);
    cluster_metrics_ = std::move(text);
  }
  [[nodiscard]] std::shared_ptr<const served_model> model() const {
    const std::lock_guard guard(mutex_);
    return model_;
  }
  [[nodiscard]] std::string not_ready() const {
    const std::lock_guard guard(mutex_);
    return not_ready_;
  }
  [[nodiscard]] std::string cluster() const {
    const std::lock_guard guard(mutex_);
    return cluster_;
  }
  [[nodiscard]] std::string metrics() const {
    const std::lock_guard guard(mutex_);
    return metrics_ + cluster_metrics_;
  }

private:
  mutable std::mutex mutex_;
  std::shared_ptr<const served_model> model_;
  std::string not_ready_ = "the router is starting";
  std::string cluster_ = "{}";
  std::string metrics_, cluster_metrics_;
};

} // namespace hexgen::actors
