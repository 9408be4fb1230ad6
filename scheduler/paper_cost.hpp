// HexGen's own cost model (ICML 2024, section 3), as settled in docs/planning.md.
#pragma once

#include "scheduler/cost_model.hpp"

namespace hexgen::scheduler {

/// 12H² parameters a layer, peak speeds, no reserve, one request at a time, no return hop.
class paper_cost final : public cost_model {
public:
  /// `prompt` and `output` size the KV cache in layer_cap; `kv_sharded` false keeps the authors'
  /// code variant, where every device of a stage holds all of it.
  paper_cost(const pool& pool, const config::model_shape& model, int prompt, int output,
             bool kv_sharded = true);

  [[nodiscard]] stage_cost stage(const std::vector<int>& devices, int layers, stage_position where,
                                 int prompt, int output) const override;
  [[nodiscard]] double hop(const std::vector<int>& from, const std::vector<int>& to, int prompt,
                           int output) const override;
  [[nodiscard]] double way_back(const std::vector<int>& from, const std::vector<int>& to,
                                int output) const override;
  [[nodiscard]] int layer_cap(int kind, int degree, stage_position where) const override;
  [[nodiscard]] double room(int device) const override;

  /// Bytes on each of `degree` devices.
  [[nodiscard]] double memory_bytes(int degree, int layers, int prompt, int output) const;

private:
  [[nodiscard]] double all_reduce(const std::vector<int>& devices, double bytes) const;

  int prompt_, output_;
  bool kv_sharded_;
};

} // namespace hexgen::scheduler
