#include "compute/cpu/cpu_executor.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace hexgen::compute {

namespace {

std::size_t at(int row, int width) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(width);
}

kv_layout layout_of(const model_config& config, const executor_options& options) {
  return {options.kv, config.head_dim};
}

} // namespace

cpu_executor::cpu_executor(std::shared_ptr<const model_file> model, const shard& part,
                           const executor_options& options, const executor_memory& planned)
    : model_(std::move(model)), part_(part), options_(options),
      kernels_(options.kernels == kernel_kind::fast ? fast_kernels() : reference_kernels()),
      weight_memory_(planned.weight_bytes), activation_memory_(planned.activation_bytes),
      weights_(load_shard(*model_, part_, options_, weight_memory_)),
      work_(config(), part_, options_, activation_memory_),
      pool_(layout_of(config(), options_), part_.layers, part_.kv_head_end - part_.kv_head_begin),
      rope_(config()), threads_(options.threads),
      attention_leaves_(attention_leaves(config(), part_)),
      ffn_leaves_(ffn_leaves(config(), part_)) {}

executor_memory cpu_executor::memory() const {
  return {weight_memory_.used(), activation_memory_.used(), pool_.block_bytes()};
}

void cpu_executor::run(const step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
                       std::span<float> logits, collective& group) {
  const auto rows = lay_out(s, {options_.max_step_tokens, options_.max_logit_rows, pool_.blocks()});
  check(rows, ids, hidden, logits, group);
  tokens_ = static_cast<int>(rows.tokens.size());
  agree(group, tokens_);
  for (const auto& [from, to] : s.copies)
    pool_.copy_block(from, to);
  if (tokens_ == 0)
    return;
  if (part_.first)
    embed(ids, hidden, group);
  threads_.run(tokens_, chunk(tokens_), [&](std::int64_t begin, std::int64_t end) {
    for (auto t = begin; t < end; ++t)
      rope_.fill(rows.tokens[static_cast<std::size_t>(t)].position,
                 work_.angles + at(static_cast<int>(t), config().head_dim));
  });

  const leaf_exchange* done = nullptr;
  for (int i = 0; i < part_.layers; ++i) {
    const auto& w = weights_.layers[static_cast<std::size_t>(i)];
    finish_and_normalise(hidden, done, w.attention_norm, w.qkv.input_bits());
    project(w.qkv, work_.normed, config().hidden, work_.qkv);
    rotate_and_store(w, i, rows);
    attend(w, i, rows);
    project_leaves(w.attention_out, work_.attended, work_.query_width, attention_leaves_,
                   *attention_exchange_, group);
    finish_and_normalise(hidden, &*attention_exchange_, w.ffn_norm, w.gate_up.input_bits());
    project(w.gate_up, work_.normed, config().hidden, work_.gate_up);
    gate(w);
    project_leaves(w.ffn_down, work_.gate_up, 2 * work_.ffn_width, ffn_leaves_, *ffn_exchange_,
                   group);
    done = &*ffn_exchange_;
  }
  finish_and_normalise(hidden, done, nullptr, std::nullopt);
  if (part_.last)
    write_logits(rows, hidden, logits, group);
}

void cpu_executor::check(const step_rows& rows, std::span<const std::int32_t> ids,
                         std::span<float> hidden, std::span<float> logits,
                         const collective& group) const {
  const auto tokens = rows.tokens.size();
  const auto require = [](bool holds, const char* what) {
    if (!holds)
      throw std::invalid_argument(std::string("executor: ") + what);
  };
  require(group.degree() == part_.degree && group.rank() == part_.rank,
          "the group is not that of the shard");
  require(hidden.size() == tokens * static_cast<std::size_t>(config().hidden),
          "hidden has the wrong size");
  const bool leads = part_.rank == 0;
  require(!(part_.last && leads) ||
              logits.size() == rows.logits.size() * static_cast<std::size_t>(config().vocab),
          "logits have the wrong size");
  if (part_.first && leads) {
    require(ids.size() == tokens, "there must be one id for each token");
    require(std::all_of(ids.begin(), ids.end(),
                        [&](std::int32_t id) { return id >= 0 && id < config().vocab; }),
            "a token id is outside the vocabulary");
  }
}

void cpu_executor::agree(collective& group, int tokens) {
  const rank_ranges own{part_.kv_head_begin,
                        part_.kv_head_end,
                        part_.ffn_leaf_begin,
                        part_.ffn_leaf_end,
                        part_.vocab_begin,
                        part_.vocab_end,
                        tokens};
  std::vector<rank_ranges> all(static_cast<std::size_t>(part_.degree), own);
  if (part_.degree > 1) {
    std::vector<std::span<std::byte>> places;
    for (auto& r : all)
      places.push_back(std::as_writable_bytes(std::span(&r, 1)));
    group.all_gather(std::as_bytes(std::span(&own, 1)), places);
  }
  for (const auto& r : all)
    if (r.tokens != tokens)
      throw std::invalid_argument("executor: the ranks were given unlike steps");
  const auto same_ranges = [](const rank_ranges& a, rank_ranges b) {
    b.tokens = a.tokens;
    return a == b;
  };
  if (std::equal(all.begin(), all.end(), ranks_.begin(), ranks_.end(), same_ranges))
    return;
  std::vector<leaf_range> heads;
  std::vector<leaf_range> leaves;
  for (const auto& r : all) {
    heads.push_back({r.kv_begin, r.kv_end});
    leaves.push_back({r.ffn_begin, r.ffn_end});
  }
  const int total = static_cast<int>(ffn_leaf_cuts(config()).size()) - 1;
  attention_exchange_.emplace(config().kv_heads, heads, part_.rank);
  ffn_exchange_.emplace(total, leaves, part_.rank);
  ranks_ = std::move(all);
}

void cpu_executor::embed(std::span<const std::int32_t> ids, std::span<float> hidden,
                         collective& group) {
  if (part_.rank == 0) {
    const auto& table = *weights_.embedding;
    const std::size_t stride = row_bytes(table.type, table.columns);
    threads_.run(tokens_, chunk(tokens_), [&](std::int64_t begin, std::int64_t end) {
      for (auto t = begin; t < end; ++t) {
        const auto row = static_cast<std::size_t>(ids[static_cast<std::size_t>(t)]);
        dequantize_row(table.type, table.bytes.data() + stride * row, table.columns,
                       hidden.data() + at(static_cast<int>(t), config().hidden));
      }
    });
  }
  if (part_.degree > 1)
    group.broadcast(std::as_writable_bytes(hidden));
}

void cpu_executor::finish_and_normalise(std::span<float> hidden, const leaf_exchange* done,
                                        const float* weight, std::optional<code_bits> bits) {
  const int width = config().hidden;
  const std::size_t plane = at(tokens_, width);
  threads_.run(tokens_, chunk(tokens_), [&](std::int64_t begin, std::int64_t end) {
    for (auto t = static_cast<int>(begin); t < static_cast<int>(end); ++t) {
      float* x = hidden.data() + at(t, width);
      if (done != nullptr) {
        float* sums = work_.sums + at(t, width);
        for (const auto& [to, from] : done->additions())
          kernels_.add(sums + plane * static_cast<std::size_t>(to),
                       sums + plane * static_cast<std::size_t>(from), width);
        kernels_.add(x, sums, width);
      }
      if (weight != nullptr) {
        float* normed = work_.normed + at(t, width);
        kernels_.normalise(x, weight, config().norm_epsilon, width, normed);
        quantise(normed, bits, width, t, 0, width);
      }
    }
  });
}

void cpu_executor::rotate_and_store(const layer_weights& w, int layer, const step_rows& rows) {
  const auto& c = config();
  const int heads = part_.kv_head_end - part_.kv_head_begin;
  const int queries = heads * c.group();
  const float scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
  threads_.run(tokens_, chunk(tokens_), [&](std::int64_t begin, std::int64_t end) {
    for (auto t = static_cast<int>(begin); t < static_cast<int>(end); ++t) {
      const auto& row = rows.tokens[static_cast<std::size_t>(t)];
      float* qkv = work_.qkv + at(t, work_.qkv_width);
      if (w.qkv_bias != nullptr)
        kernels_.add(qkv, w.qkv_bias, work_.qkv_width);
      for (int h = 0; h < queries + heads; ++h) {
        float* head = qkv + at(h, c.head_dim);
        const float* norm = h < queries ? w.query_norm : w.key_norm;
        if (norm != nullptr)
          kernels_.normalise(head, norm, c.norm_epsilon, c.head_dim, head);
        kernels_.rotate(head, work_.angles + at(t, c.head_dim), c.head_dim, c.rope_interleaved);
        if (h < queries)
          for (int i = 0; i < c.head_dim; ++i)
            head[i] *= scale;
      }
      const auto block = row.entry->blocks[static_cast<std::size_t>(row.position / block_tokens)];
      for (int h = 0; h < heads; ++h)
        kernels_.store_kv(pool_.layout(), pool_.head(layer, h) + pool_.block_bytes() * block,
                          row.position % block_tokens, qkv + at(queries + h, c.head_dim),
                          qkv + at(queries + heads + h, c.head_dim));
    }
  });
}

void cpu_executor::attend(const layer_weights& w, int layer, const step_rows& rows) {
  const auto& c = config();
  const int heads = part_.kv_head_end - part_.kv_head_begin;
  const int width = c.group() * c.head_dim; // of one leaf
  const auto bits = w.attention_out.input_bits();
  const auto items = static_cast<std::int64_t>((tokens_ + 1) / 2) * heads; // two tokens each
  const auto attend_one = [&](int t, int tokens, int h) {
    const auto& row = rows.tokens[static_cast<std::size_t>(t)];
    float* out = work_.attended + at(t, work_.query_width);
    attention a;
    a.query = work_.qkv + at(t, work_.qkv_width) + at(h, width);
    a.query_stride = static_cast<std::size_t>(work_.qkv_width);
    a.out = out + at(h, width);
    a.out_stride = static_cast<std::size_t>(work_.query_width);
    a.tokens = tokens;
    a.heads = c.group();
    a.positions = row.position + 1;
    a.blocks = row.entry->blocks.data();
    a.pool = pool_.head(layer, h);
    a.block_stride = pool_.block_bytes();
    kernels_.attend(pool_.layout(), a);
    for (int i = 0; i < tokens; ++i)
      quantise(out + at(i, work_.query_width), bits, work_.query_width, t + i, h * width, width);
  };
  threads_.run(items, chunk(items), [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      const auto t = static_cast<int>(i / heads) * 2;
      const auto h = static_cast<int>(i % heads);
      const auto* one = &rows.tokens[static_cast<std::size_t>(t)];
      if (t + 1 == tokens_) {
        attend_one(t, 1, h);
      } else if (one[0].entry == one[1].entry) {
        attend_one(t, 2, h);
      } else {
        attend_one(t, 1, h);
        attend_one(t + 1, 1, h);
      }
    }
  });
}

void cpu_executor::gate(const layer_weights& w) {
  const int width = work_.ffn_width;
  const auto bits = w.ffn_down.input_bits();
  threads_.run(tokens_, chunk(tokens_), [&](std::int64_t begin, std::int64_t end) {
    for (auto t = static_cast<int>(begin); t < static_cast<int>(end); ++t) {
      float* gates = work_.gate_up + at(t, 2 * width);
      kernels_.gate(gates, gates + width, width);
      quantise(gates, bits, width, t, 0, width);
    }
  });
}

void cpu_executor::project(const stacked_matrices& w, const float* in, int in_width, float* out) {
  const leaf_columns whole{0, in_width};
  const leaf_sum sum{&whole, 1, out};
  multiply(w, inputs(w, in, in_width, static_cast<std::size_t>(in_width)), {&sum, 1},
           static_cast<std::size_t>(w.rows), tokens_);
}

void cpu_executor::project_leaves(const stacked_matrices& w, const float* in, int in_stride,
                                  const std::vector<leaf_columns>& leaves,
                                  const leaf_exchange& exchange, collective& group) {
  const std::size_t plane = at(tokens_, config().hidden);
  std::vector<leaf_sum> sums;
  float* out = work_.sums + plane * static_cast<std::size_t>(exchange.first_plane());
  for (const auto& node : exchange.own_nodes()) {
    sums.push_back({leaves.data() + node.begin, node.end - node.begin, out});
    out += plane;
  }
  const int width = leaves.empty() ? 0 : leaves.back().end;
  multiply(w, inputs(w, in, width, static_cast<std::size_t>(in_stride)), sums,
           static_cast<std::size_t>(config().hidden), tokens_);
  exchange.gather(group, {work_.sums, plane * static_cast<std::size_t>(exchange.planes())}, plane);
}

void cpu_executor::write_logits(const step_rows& rows, std::span<const float> hidden,
                                std::span<float> logits, collective& group) {
  const int wanted = static_cast<int>(rows.logits.size());
  const auto vocab = static_cast<std::size_t>(config().vocab);
  const int width = config().hidden;
  const auto bits = weights_.head.input_bits();
  if (wanted == 0)
    return;
  threads_.run(wanted, chunk(wanted), [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<int>(begin); i < static_cast<int>(end); ++i) {
      float* out = work_.logit_rows + at(i, width);
      kernels_.normalise(hidden.data() + at(rows.logits[static_cast<std::size_t>(i)], width),
                         weights_.output_norm, config().norm_epsilon, width, out);
      quantise(out, bits, width, i, 0, width);
    }
  });
  const leaf_columns whole{0, width};
  const auto in = inputs(weights_.head, work_.logit_rows, width, static_cast<std::size_t>(width));
  if (part_.degree == 1) {
    const leaf_sum sum{&whole, 1, logits.data()};
    multiply(weights_.head, in, {&sum, 1}, vocab, wanted);
    return;
  }
  // Rank r's rows lie as [wanted][its rows], ranks one after the other.
  std::vector<std::span<std::byte>> all;
  for (const auto& r : ranks_) {
    float* begin = work_.logits + static_cast<std::size_t>(r.vocab_begin) * wanted;
    const auto count = static_cast<std::size_t>(r.vocab_end - r.vocab_begin) * wanted;
    all.push_back(std::as_writable_bytes(std::span(begin, count)));
  }
  const auto mine = all[static_cast<std::size_t>(part_.rank)];
  const leaf_sum sum{&whole, 1, reinterpret_cast<float*>(mine.data())};
  multiply(weights_.head, in, {&sum, 1}, static_cast<std::size_t>(weights_.head.rows), wanted);
  group.all_gather(mine, all);
  if (part_.rank != 0)
    return;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    const auto count = static_cast<std::size_t>(ranks_[r].vocab_end - ranks_[r].vocab_begin);
    for (std::size_t i = 0; i < static_cast<std::size_t>(wanted) && count != 0; ++i)
      std::memcpy(logits.data() + i * vocab + static_cast<std::size_t>(ranks_[r].vocab_begin),
                  all[r].data() + i * count * sizeof(float), count * sizeof(float));
  }
}

void cpu_executor::multiply(const stacked_matrices& w, const activation_rows& in,
                            std::span<const leaf_sum> sums, std::size_t out_stride, int tokens) {
  std::int64_t groups = 0;
  for (const auto& part : w.parts)
    groups += part.weights.groups();
  threads_.run(groups, chunk(groups), [&](std::int64_t begin, std::int64_t end) {
    std::vector<leaf_sum> moved(sums.begin(), sums.end());
    std::int64_t first = 0;
    for (const auto& part : w.parts) {
      const std::int64_t count = part.weights.groups();
      const auto from = std::max<std::int64_t>(begin - first, 0);
      const auto to = std::min<std::int64_t>(end - first, count);
      if (from < to) {
        for (std::size_t s = 0; s < sums.size(); ++s)
          moved[s].out = sums[s].out + part.first_row;
        const product p{part.weights, in, moved.data(), static_cast<int>(moved.size()), out_stride};
        kernels_.multiply(p, static_cast<int>(from), static_cast<int>(to), tokens);
      }
      first += count;
    }
  });
}

activation_rows cpu_executor::inputs(const stacked_matrices& w, const float* values, int width,
                                     std::size_t stride) const {
  return {values,
          stride,
          work_.codes,
          work_.meta,
          width / block_columns,
          w.input_bits().value_or(code_bits::sixteen)};
}

void cpu_executor::quantise(const float* x, std::optional<code_bits> bits, int width, int row,
                            int first_column, int columns) {
  if (!bits)
    return;
  const std::size_t block = block_index(row, first_column / block_columns, width / block_columns);
  kernels_.quantise(x + first_column, columns, *bits, work_.codes + block * block_code_bytes,
                    work_.meta + block);
}

std::int64_t cpu_executor::chunk(std::int64_t items) const {
  constexpr std::int64_t runs_per_thread = 4;
  return std::max<std::int64_t>(1, items / (threads_.threads() * runs_per_thread));
}

} // namespace hexgen::compute
