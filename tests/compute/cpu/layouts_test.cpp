// The CPU's promise: the bits of a logit do not depend on layout, batch, chunks, threads, blocks'
// placement or instruction set (docs/design.md, Numerics).
#include "compute/synthetic.hpp"
#include "tests/catch.hpp"
#include "tests/compute/cpu/golden.hpp"
#include "tests/compute/cpu/runner.hpp"

#include <map>

namespace hexgen::compute::testing {

namespace {

using rows = std::vector<std::vector<float>>;

struct variant {
  std::string name;
  test_layout layout;
  int threads = 1;
  int chunk = 1000;       // prompt tokens of a step
  bool alone = false;     // one sequence at a time, instead of all in each step
  std::uint32_t seed = 0; // of the blocks' placement
  std::string level = {};
};

/// Logits of every prompt's last tokens and of some decoded ones, by sequence.
rows logits_of(const std::shared_ptr<const model_file>& model, const variant& v,
               const executor_options& base, const std::vector<std::vector<std::int32_t>>& prompts,
               int decoded) {
  if (!v.level.empty())
    set_cpu_level(v.level);
  executor_options options = base;
  options.threads = v.threads;
  runner r(model, v.layout, options, 128, v.seed);
  std::map<int, rows> found;
  const auto advance = [&](std::vector<int> members) {
    std::map<int, std::size_t> done;
    std::map<int, std::vector<std::int32_t>> left;
    for (const int m : members)
      left[m] = prompts[static_cast<std::size_t>(m)];
    int forced = 0;
    while (!left.empty()) {
      std::vector<test_run> runs;
      for (auto& [m, ids] : left) {
        const auto take = std::min(ids.size(), static_cast<std::size_t>(v.chunk));
        const bool ends = take == ids.size();
        runs.push_back(
            {m, {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(take)}, ends ? 1 : 0});
        ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(take));
      }
      const auto out = r.step(runs);
      std::size_t next = 0;
      for (const auto& run : runs)
        if (run.logits != 0) {
          found[run.sequence].push_back(out[next++]);
          if (static_cast<int>(found[run.sequence].size()) <= decoded)
            left[run.sequence] = {largest_index(found[run.sequence].back())};
          else
            left.erase(run.sequence);
        }
      ++forced;
    }
  };
  std::vector<int> all;
  for (int i = 0; i < static_cast<int>(prompts.size()); ++i)
    all.push_back(i);
  if (v.alone)
    for (const int m : all)
      advance({m});
  else
    advance(all);
  if (!v.level.empty())
    set_cpu_level("");
  rows flat;
  for (auto& [sequence, each] : found)
    flat.insert(flat.end(), each.begin(), each.end());
  return flat;
}

std::vector<std::vector<std::int32_t>> random_prompts(int vocab) {
  std::vector<std::vector<std::int32_t>> prompts;
  std::uint32_t state = 1;
  for (const int length : {5, 37, 16, 1, 70}) {
    auto& p = prompts.emplace_back();
    for (int i = 0; i < length; ++i) {
      state = state * 1664525 + 1013904223;
      p.push_back(static_cast<std::int32_t>(state >> 8) % vocab);
    }
  }
  return prompts;
}

std::vector<variant> variants_of(const model_config& c) {
  const int half = c.layers / 2;
  std::vector<variant> out{
      {"one device", one_device(c)},
      {"two threads", one_device(c), 2},
      {"chunks of 3, blocks scattered", one_device(c), 1, 3, false, 7},
      {"one sequence at a time", one_device(c), 1, 1000, true, 3},
      {"two stages", {{half, c.layers - half}, {{1}, {1}}}},
      {"even degree, then one", {{half, c.layers - half}, {{1, 1}, {1}}}},
      {"uneven degree", {{c.layers}, {{3, 1}}}, 1, 11},
  };
  if (c.kv_heads >= 3)
    out.push_back({"degree three", {{c.layers}, {{1, 1, 1}}}});
  for (const auto& level : cpu_levels())
    out.push_back({"level " + level, one_device(c), 1, 1000, false, 0, level});
  return out;
}

void check_all(const std::shared_ptr<const model_file>& model, const executor_options& options,
               const std::vector<std::vector<std::int32_t>>& prompts, int decoded) {
  rows expected;
  for (const auto& v : variants_of(model->config())) {
    CAPTURE(v.name);
    const auto got = logits_of(model, v, options, prompts, decoded);
    if (expected.empty())
      expected = got;
    REQUIRE(got.size() == expected.size());
    CHECK(got == expected);
  }
}

model_config three_heads() {
  auto c = tiny_config();
  c.hidden = 256;
  c.heads = 6;
  c.kv_heads = 3;
  c.head_dim = 128;
  c.ffn = 1024;
  return c;
}

} // namespace

TEST_CASE("bits are the same on every layout for every weight type", "[layouts]") {
  for (const auto type :
       {tensor_type::f32, tensor_type::f16, tensor_type::bf16, tensor_type::q8_0, tensor_type::q4_0,
        tensor_type::q4_1, tensor_type::q5_0, tensor_type::q5_1, tensor_type::iq4_nl,
        tensor_type::q4_k, tensor_type::q5_k, tensor_type::q6_k}) {
    CAPTURE(to_string(type));
    const auto model = make_synthetic_model(three_heads(), type, 5);
    executor_options options;
    check_all(model, options, random_prompts(model->config().vocab), 3);
  }
}

TEST_CASE("bits are the same on every layout for every KV type and family", "[layouts]") {
  for (const auto kv : {kv_type::f32, kv_type::f16, kv_type::bf16, kv_type::q8})
    for (const char* family : {"llama", "mistral", "qwen2", "qwen3"}) {
      CAPTURE(family, static_cast<int>(kv));
      const auto model = make_synthetic_model(tiny_config(family), tensor_type::q8_0, 6);
      executor_options options;
      options.kv = kv;
      check_all(model, options, random_prompts(model->config().vocab), 3);
    }
}

TEST_CASE("the reference's bits are the same on every layout", "[layouts]") {
  const auto model = make_synthetic_model(three_heads(), tensor_type::q4_k, 5);
  executor_options options;
  options.kernels = kernel_kind::reference;
  check_all(model, options, random_prompts(model->config().vocab), 3);
}

TEST_CASE("the default model's bits are the same on every layout", "[layouts]") {
  const auto model = default_model();
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::size_t i = 0; i < 4; ++i)
    prompts.push_back(golden_cases()[i].ids);
  executor_options options;
  auto variants = variants_of(model->config());
  variants.push_back({"2+1, then one, then two", {{12, 8, 10}, {{2, 1}, {1}, {1, 1}}}, 1, 9});
  rows expected;
  for (const auto& v : variants) {
    CAPTURE(v.name);
    const auto got = logits_of(model, v, options, prompts, 2);
    if (expected.empty())
      expected = got;
    CHECK(got == expected);
  }
}

} // namespace hexgen::compute::testing
