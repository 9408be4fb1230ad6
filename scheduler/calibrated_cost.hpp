// What a request costs on real engines: true sizes, reached speeds, steps shared by many requests.
#pragma once

#include "scheduler/cost_model.hpp"

namespace hexgen::scheduler {

struct calibration {
  double concurrency = 16;        // sequences that share a decode step
  double sequences = 32;          // whose KV every stage has room for
  int context = 1024;             // tokens of such a sequence, prompt and output
  double reserve_gib = 1.5;       // runtime, collectives, fragmentation
  double activation_tokens = 512; // largest step's tokens, for buffers
  int max_running = 256;          // sequences that a pipeline of the engine runs at once
};

/// Per step max(compute, memory) as a function of the tokens in it, measured tables where the
/// catalogue has them, ring all-reduces by latency and bandwidth, embedding and head at the ends,
/// the token's way back charged.
class calibrated_cost final : public cost_model {
public:
  calibrated_cost(const pool& pool, const config::model_shape& model, const calibration& setting);

  [[nodiscard]] stage_cost stage(const std::vector<int>& devices, int layers, stage_position where,
                                 int prompt, int output) const override;
  [[nodiscard]] double busy(const std::vector<int>& devices, int layers, stage_position where,
                            int prompt, int output) const override;
  [[nodiscard]] double least_busy(const std::vector<int>& devices, int layers, int prompt,
                                  int output) const override;
  [[nodiscard]] double hop(const std::vector<int>& from, const std::vector<int>& to, int prompt,
                           int output) const override;
  [[nodiscard]] double way_back(const std::vector<int>& from, const std::vector<int>& to,
                                int output) const override;
  [[nodiscard]] int layer_cap(int kind, int degree, stage_position where) const override;
  [[nodiscard]] double room(int device) const override;

  /// Seconds of one step through `layers` layers: `decode` sequences of one token each with
  /// `context` tokens of KV, and `prefill` prompt tokens.
  [[nodiscard]] double step_s(const std::vector<int>& devices, int layers, stage_position where,
                              double decode, double context, double prefill) const;
  /// Tokens of KV that the stage's fullest device has room for beside its weights.
  [[nodiscard]] double kv_tokens(const std::vector<int>& devices, int layers,
                                 stage_position where) const;
  /// Seconds of a hop that carries `tokens` activations.
  [[nodiscard]] double step_hop_s(const std::vector<int>& from, const std::vector<int>& to,
                                  double tokens) const;
  [[nodiscard]] const calibration& setting() const { return setting_; }

private:
  [[nodiscard]] double weights_bytes(int degree, int layers, stage_position where) const;
  [[nodiscard]] double activation_bytes() const;
  [[nodiscard]] double all_reduce_s(const std::vector<int>& devices, double tokens) const;
  [[nodiscard]] double layer_s(int kind, int degree, double decode, double prefill) const;
  [[nodiscard]] double head_s(int kind, int degree, double tokens) const;
  [[nodiscard]] double slowest(const std::vector<int>& devices, double decode, double context,
                               double prefill) const;

  calibration setting_;
};

} // namespace hexgen::scheduler
