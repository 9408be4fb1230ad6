// A model of nothing but memory, in layers: whichever way its layers are shared out, a token is the
// same pure function of everything before it, and a wrong, stale or foreign KV block changes it.
#pragma once

#include "compute/sampler.hpp"
#include "compute/step.hpp"
#include "tests/fake_kv.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace hexgen::tests {

inline constexpr int layered_model_layers = 3;
inline constexpr int layered_model_vocab = 257; // bytes and an end token
inline constexpr int layered_model_end = 256;

/// What a layer passes on for a position whose KV is `hash`.
[[nodiscard]] inline std::uint64_t layer_output(std::uint64_t hash, int layer) {
  return mix(hash, 1000 + static_cast<std::uint64_t>(layer));
}

/// The token chosen from the last layer's output.
[[nodiscard]] inline compute::token_id choose_token(std::uint64_t output,
                                                    const compute::sampling_params& p) {
  return fake_token(output, mix(p.seed, p.choice), layered_model_vocab);
}

/// Whether `id`, the `index`-th generated token, is the last one.
[[nodiscard]] inline bool is_last(compute::token_id id, int index,
                                  const compute::sampling_params& p, bool& by_length) {
  const bool ends = id == layered_model_end && !p.ignore_eos;
  by_length = !ends && index + 1 >= p.max_tokens;
  return ends || by_length;
}

/// What an undisturbed run answers.
[[nodiscard]] inline std::vector<compute::token_id>
answer_of(std::span<const compute::token_id> prompt, const compute::sampling_params& p) {
  std::uint64_t hashes[layered_model_layers];
  std::fill_n(hashes, layered_model_layers, fake_root);
  std::uint64_t x = 0;
  const auto feed = [&](compute::token_id id) {
    x = fake_input(id);
    for (int l = 0; l < layered_model_layers; ++l) {
      hashes[l] = mix(hashes[l], x);
      x = layer_output(hashes[l], l);
    }
  };
  for (const auto id : prompt)
    feed(id);
  std::vector<compute::token_id> out;
  for (bool by_length = false;;) {
    out.push_back(choose_token(x, p));
    if (is_last(out.back(), static_cast<int>(out.size()) - 1, p, by_length))
      return out;
    feed(out.back());
  }
}

/// Layers [first, first + count) of one generation on one device.
class layered_stage {
public:
  layered_stage(int first, int count, std::uint32_t blocks, std::uint64_t generation)
      : first_(first), generation_(generation),
        kv_(static_cast<std::size_t>(count), fake_kv(blocks)),
        passed_(std::size_t{blocks} * fake_block_tokens) {}

  /// Its KV is another generation's from now on.
  void inherited_by(std::uint64_t generation) { generation_ = generation; }

  /// What it passed on for the step's positions.
  [[nodiscard]] std::vector<std::uint64_t> passed(const compute::step& s) const {
    std::vector<std::uint64_t> out;
    for_each_slot(s, [&](std::size_t slot) { out.push_back(passed_.at(slot)); });
    return out;
  }

  /// `x`: one activation a token, in and out. False: the KV is not what the step takes it for.
  /// `generation`: that the step belongs to; KV is of one generation only.
  [[nodiscard]] bool run(const compute::step& s, std::vector<std::uint64_t>& x,
                         std::uint64_t generation) {
    if (generation != generation_ || x.size() != static_cast<std::size_t>(s.tokens()))
      return false;
    for (const auto& [from, to] : s.copies) {
      for (auto& layer : kv_)
        layer.copy(from, to);
      for (std::size_t i = 0; i < fake_block_tokens; ++i)
        passed_.at(std::size_t{to} * fake_block_tokens + i) =
            passed_.at(std::size_t{from} * fake_block_tokens + i);
    }
    for (std::size_t l = 0; l < kv_.size(); ++l) {
      std::vector<std::uint64_t> out;
      std::size_t at = 0;
      for (const auto& e : s.entries) {
        const auto n = static_cast<std::size_t>(e.tokens);
        if (!kv_[l].run(e.position, std::span(x).subspan(at, n), e.blocks, out))
          return false;
        at += n;
      }
      for (auto& hash : out)
        hash = layer_output(hash, first_ + static_cast<int>(l));
      x = std::move(out);
    }
    std::size_t row = 0;
    for_each_slot(s, [&](std::size_t slot) { passed_.at(slot) = x[row++]; });
    return true;
  }

private:
  template <class F>
  static void for_each_slot(const compute::step& s, F what) {
    for (const auto& e : s.entries)
      for (int p = e.position; p < e.position + e.tokens; ++p)
        what(std::size_t{e.blocks[static_cast<std::size_t>(p / fake_block_tokens)]} *
                 fake_block_tokens +
             static_cast<std::size_t>(p % fake_block_tokens));
  }

  int first_;
  std::uint64_t generation_;
  std::vector<fake_kv> kv_;
  std::vector<std::uint64_t> passed_; // by block and position
};

} // namespace hexgen::tests
