// Which part of a model one rank of one stage holds, and the leaves that products are summed over.
#pragma once

#include "compute/model_config.hpp"

#include <vector>

namespace hexgen::compute {

/// Rows of the FFN (gate/up rows, down columns) of leaf i are [cut[i], cut[i+1]).
/// min(16, ffn/256) nearly equal runs of 256 columns, of 32 when ffn < 2,048
/// (docs/design.md, Numerics). The last run takes what 256 does not divide.
[[nodiscard]] std::vector<int> ffn_leaf_cuts(const model_config& config);

/// A rank's slice. Attention leaves are KV heads (with the query heads that share them);
/// both ranges may be empty for a rank that takes no part.
struct shard {
  int first_layer = 0;
  int layers = 0;
  bool first = false; // holds the token embedding (leader only): the stage's input is token ids
  bool last = false;  // holds the final norm and rows [vocab_begin, vocab_end) of the head
  int rank = 0;       // 0 is the stage's leader
  int degree = 1;
  int kv_head_begin = 0, kv_head_end = 0;
  int ffn_leaf_begin = 0, ffn_leaf_end = 0;
  int vocab_begin = 0, vocab_end = 0;

  bool operator==(const shard&) const = default;
};

/// Every rank's shard of a stage of `layers` layers from `first_layer`, split over
/// `speeds.size()` ranks in proportion to `speeds` (all > 0), in whole leaves. Rank order is leaf
/// order. Each rank gets at least one KV head; throws std::invalid_argument when there are more
/// ranks than KV heads or layers are out of range.
[[nodiscard]] std::vector<shard> make_shards(const model_config& config, int first_layer,
                                             int layers, const std::vector<double>& speeds);

} // namespace hexgen::compute
