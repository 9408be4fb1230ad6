// GPU tables in one command, without network: correctness on this card first, then decode and
// prefill rates of a shape with random weights, each beside its limit.
#include "compute/cuda_backend.hpp"
#include "compute/int4_groups.hpp"
#include "compute/sampling/philox.hpp"
#include "compute/sampling/selection.hpp"
#include "compute/shape_model.hpp"
#include "compute/synthetic.hpp"

#if __has_include(<cuda_profiler_api.h>)
#include <cuda_profiler_api.h>
#endif

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace hexgen::compute;
using clock_type = std::chrono::steady_clock;

namespace {

/// What `ncu --profile-from-start off` sees: the object's life.
class profiled {
public:
#if __has_include(<cuda_profiler_api.h>)
  profiled() {
    cudaProfilerStart();
  }
  ~profiled() {
    cudaProfilerStop();
  }
#endif
  profiled(const profiled&) = delete;
  profiled& operator=(const profiled&) = delete;
};

double seconds_since(clock_type::time_point begin) {
  return std::chrono::duration<double>(clock_type::now() - begin).count();
}

model_config model_shape(const std::string& name) {
  model_config c;
  c.name = name;
  c.architecture = "llama";
  c.context = 4096;
  c.head_dim = 128;
  if (name == "llama-2-7b") {
    c.layers = 32, c.hidden = 4096, c.heads = 32, c.kv_heads = 32, c.ffn = 11008, c.vocab = 32000;
  } else if (name == "llama-3-8b") {
    c.layers = 32, c.hidden = 4096, c.heads = 32, c.kv_heads = 8, c.ffn = 14336, c.vocab = 128256;
  } else if (name == "llama-2-70b") {
    c.layers = 80, c.hidden = 8192, c.heads = 64, c.kv_heads = 8, c.ffn = 28672, c.vocab = 32000;
  } else {
    std::fprintf(stderr, "unknown shape %s (llama-2-7b, llama-3-8b, llama-2-70b)\n", name.c_str());
    std::exit(2);
  }
  return c;
}

shard whole(const model_config& c) {
  return make_shards(c, 0, c.layers, {1.0}).front();
}

std::vector<std::uint32_t> blocks_for(int sequence, int tokens) {
  const int each = (tokens + block_tokens - 1) / block_tokens;
  std::vector<std::uint32_t> out;
  for (int b = 0; b < each; ++b)
    out.push_back(static_cast<std::uint32_t>(sequence * each + b));
  return out;
}

struct logit_error {
  double relative = 0; // of norms
  double worst = 0;
  double rms = 0; // of the reference
};

logit_error error_of(std::span<const float> got, std::span<const float> expected) {
  double squares = 0;
  double reference = 0;
  logit_error e;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(expected[i]);
    squares += d * d;
    reference += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
    e.worst = std::max(e.worst, std::isfinite(got[i]) ? std::abs(d) : 1e9);
  }
  e.relative = std::sqrt(squares / reference);
  e.rms = std::sqrt(reference / static_cast<double>(expected.size()));
  return e;
}

/// bf16 keeps 8 bits: about 2^-9 a rounding, some ten roundings a layer added as noise. Wide steps
/// round int4 weights to bf16, too: those of four products a layer and of the head.
double allowed_error(int layers, gpu_weights weights = gpu_weights::bf16) {
  const bool rounded = weights == gpu_weights::int4;
  return std::ldexp(1.0, -9) * std::sqrt((rounded ? 14.0 : 10.0) * layers + (rounded ? 3 : 2));
}

/// Teacher-forced logits at every position, GPU against the CPU's float32 reference.
bool check_model(const char* name, const std::shared_ptr<const model_file>& model,
                 const std::shared_ptr<const model_file>& reference, gpu_weights weights, int chunk,
                 int tokens) {
  const auto& config = model->config();
  executor_options options;
  options.kernels = kernel_kind::reference;
  options.max_step_tokens = 512;
  options.max_logit_rows = tokens;
  gpu_options gpu;
  gpu.max_sequences = 8;
  gpu.max_context = 512;
  gpu.weights = weights;
  solo_collective alone;
  auto cpu = make_cpu_executor(reference, whole(config), options);
  auto device = make_gpu_executor(model, whole(config), options, gpu);
  cpu->allocate_kv(64);
  device->allocate_kv(64);
  std::mt19937 random(3);
  const auto count = static_cast<std::size_t>(tokens);
  std::vector<std::int32_t> ids(count);
  for (auto& id : ids)
    id = static_cast<std::int32_t>(random() % static_cast<unsigned>(config.vocab));
  const auto vocab = static_cast<std::size_t>(config.vocab);
  std::vector<float> expected(count * vocab);
  std::vector<float> got(count * vocab);
  std::vector<float> hidden(static_cast<std::size_t>(tokens) *
                            static_cast<std::size_t>(config.hidden));
  auto table = blocks_for(0, tokens);
  std::reverse(table.begin(), table.end());
  step all;
  all.entries = {{1, 0, tokens, tokens, table}};
  cpu->run(all, ids, hidden, expected, alone);
  for (int at = 0; at < tokens;) {
    const int n = std::min(chunk, tokens - at);
    step part;
    part.entries = {{1, at, n, n, table}};
    device->run(part,
                std::span(ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n)),
                hidden,
                std::span(got).subspan(static_cast<std::size_t>(at) * vocab,
                                       static_cast<std::size_t>(n) * vocab),
                alone);
    at += n;
  }
  const auto e = error_of(got, expected);
  const double allowed = allowed_error(config.layers, weights);
  const bool ok = e.relative < allowed;
  std::printf("check %-22s chunk %3d: relative error %.2e (allowed %.2e), worst %.3g  %s\n", name,
              chunk, e.relative, allowed, e.worst, ok ? "ok" : "FAILED");
  return ok;
}

/// A model whose matrices, but not its embedding, are what a GPU keeps of them with fp8 or int4
/// weights, in float32.
class rounded_model final : public model_file {
public:
  rounded_model(std::shared_ptr<const model_file> from, gpu_weights as) : from_(std::move(from)) {
    views_.assign(from_->tensors().begin(), from_->tensors().end());
    for (auto& view : views_) {
      if (view.rows == 1 || view.name == "token_embd.weight")
        continue;
      const auto columns = static_cast<std::size_t>(view.columns);
      const auto stored = row_bytes(view.type, view.columns);
      auto& values = values_.emplace_back(static_cast<std::size_t>(view.rows) * columns);
      for (std::size_t r = 0; r < static_cast<std::size_t>(view.rows); ++r) {
        const auto* row = view.bytes.data() + r * stored;
        const auto out = std::span(values).subspan(r * columns, columns);
        if (as == gpu_weights::int4) {
          std::vector<std::uint8_t> codes(columns / 2);
          std::vector<std::uint16_t> scales(columns / int4_group * 2);
          pack_int4(view.type, row, view.columns, 0, view.columns, codes.data(), scales.data());
          unpack_int4(codes.data(), scales.data(), view.columns, out.data());
        } else {
          dequantize_row(view.type, row, view.columns, out.data());
          round_to_e4m3(out);
        }
      }
      view.type = tensor_type::f32;
      view.bytes = std::as_bytes(std::span<const float>(values));
    }
  }
  [[nodiscard]] const model_config& config() const override { return from_->config(); }
  [[nodiscard]] const tensor_view* find(std::string_view name) const override {
    const auto found =
        std::find_if(views_.begin(), views_.end(), [&](const auto& v) { return v.name == name; });
    return found == views_.end() ? nullptr : &*found;
  }
  [[nodiscard]] std::span<const tensor_view> tensors() const override { return views_; }
  [[nodiscard]] std::uint64_t total_bytes() const override { return from_->total_bytes(); }

private:
  /// Times a power of two a row.
  static void round_to_e4m3(std::span<float> row) {
    float largest = 0;
    for (const float v : row)
      largest = std::max(largest, std::abs(v));
    const float scale = std::exp2(std::ceil(std::log2(largest / 448.0F)));
    for (float& v : row) {
      const float size = std::abs(v) / scale;
      const float step = std::exp2(std::max(-6.0F, std::floor(std::log2(size))) - 3);
      v = std::copysign(std::min(448.0F, std::nearbyint(size / step) * step) * scale, v);
    }
  }

  std::shared_ptr<const model_file> from_;
  std::vector<tensor_view> views_;
  std::vector<std::vector<float>> values_;
};

/// fp8 and int4 weights on the GPU against the CPU's float32 reference on the rounded weights; int4
/// also of files that have them. `chunks` as below.
bool check_rounded(int tokens, std::initializer_list<int> chunks) {
  auto c = tiny_config("llama");
  c.heads = 8, c.kv_heads = 2, c.head_dim = 128, c.hidden = 512, c.ffn = 1280, c.layers = 3;
  struct kept {
    const char* name;
    tensor_type stored;
    gpu_weights weights;
  };
  bool ok = true;
  for (const auto& k : {kept{"llama fp8", tensor_type::bf16, gpu_weights::fp8},
                        kept{"llama int4", tensor_type::bf16, gpu_weights::int4},
                        kept{"llama int4 of Q4_0", tensor_type::q4_0, gpu_weights::int4},
                        kept{"llama int4 of Q4_1", tensor_type::q4_1, gpu_weights::int4},
                        kept{"llama int4 of Q4_K", tensor_type::q4_k, gpu_weights::int4}}) {
    const auto model = make_synthetic_model(c, k.stored, 7);
    const auto reference = std::make_shared<rounded_model>(model, k.weights);
    for (const int chunk : chunks)
      ok = check_model(k.name, model, reference, k.weights, chunk, tokens) && ok;
  }
  return ok;
}

/// Decode steps of several sequences of unlike tokens and lengths, each begun at its first token,
/// against the CPU's float32 reference of each by itself.
bool check_batches() {
  auto c = tiny_config("llama");
  c.heads = 8, c.kv_heads = 2, c.head_dim = 128, c.hidden = 512, c.ffn = 1280, c.layers = 3;
  const auto model = make_synthetic_model(c, tensor_type::bf16, 7);
  const auto vocab = static_cast<std::size_t>(c.vocab);
  struct batch {
    const char* name;
    gpu_weights weights;
    int sequences;
  };
  bool ok = true;
  for (const auto& b :
       {batch{"bf16", gpu_weights::bf16, 7}, batch{"bf16", gpu_weights::bf16, 19},
        batch{"fp8", gpu_weights::fp8, 7}, batch{"fp8", gpu_weights::fp8, 19},
        batch{"int4", gpu_weights::int4, 7}, batch{"int4", gpu_weights::int4, 19}}) {
    executor_options options;
    options.kernels = kernel_kind::reference;
    options.max_step_tokens = 256;
    options.max_logit_rows = 256;
    gpu_options gpu;
    gpu.max_sequences = b.sequences;
    gpu.max_context = 256;
    gpu.weights = b.weights;
    const auto reference =
        b.weights == gpu_weights::bf16 ? model : std::make_shared<rounded_model>(model, b.weights);
    solo_collective alone;
    auto cpu = make_cpu_executor(reference, whole(c), options);
    auto device = make_gpu_executor(model, whole(c), options, gpu);
    cpu->allocate_kv(16);
    device->allocate_kv(static_cast<std::uint32_t>(b.sequences) * 16);
    std::mt19937 random(9);
    std::vector<std::vector<std::int32_t>> ids;
    std::vector<std::vector<float>> expected;
    std::vector<float> hidden(256 * static_cast<std::size_t>(c.hidden));
    const auto rows = [&](std::size_t tokens) {
      return std::span(hidden).first(tokens * static_cast<std::size_t>(c.hidden));
    };
    std::vector<float> got, wanted;
    for (int q = 0; q < b.sequences; ++q) {
      auto& mine = ids.emplace_back(static_cast<std::size_t>(3 + 2 * q));
      for (auto& id : mine)
        id = static_cast<std::int32_t>(random() % static_cast<unsigned>(c.vocab));
      const int length = static_cast<int>(mine.size());
      step s;
      s.entries = {{1, 0, length, length, blocks_for(0, 256)}};
      cpu->run(s, mine, rows(mine.size()), expected.emplace_back(mine.size() * vocab), alone);
    }
    for (std::size_t at = 0; at < ids.back().size(); ++at) {
      step s;
      std::vector<std::int32_t> tokens;
      for (std::size_t q = 0; q < ids.size(); ++q)
        if (at < ids[q].size()) {
          s.entries.push_back(
              {q, static_cast<std::int32_t>(at), 1, 1, blocks_for(static_cast<int>(q), 256)});
          tokens.push_back(ids[q][at]);
          const auto row = expected[q].begin() + static_cast<std::ptrdiff_t>(at * vocab);
          wanted.insert(wanted.end(), row, row + c.vocab);
        }
      std::vector<float> logits(tokens.size() * vocab);
      device->run(s, tokens, rows(tokens.size()), logits, alone);
      got.insert(got.end(), logits.begin(), logits.end());
    }
    const auto e = error_of(got, wanted);
    const double allowed = allowed_error(c.layers, b.weights);
    const bool fine = e.relative < allowed;
    std::printf(
        "check batch %-4s of %2d down to 1: relative error %.2e (allowed %.2e), worst %.3g  "
        "%s\n",
        b.name, b.sequences, e.relative, allowed, e.worst, fine ? "ok" : "FAILED");
    ok = fine && ok;
  }
  return ok;
}

/// `chunks`: how the positions are cut into steps.
bool checks(int tokens, std::initializer_list<int> chunks) {
  bool ok = true;
  struct family {
    const char* name;
    const char* architecture;
    int heads, kv_heads, head_dim;
  };
  for (const auto& f : {family{"llama mha d64", "llama", 4, 4, 64},
                        {"llama group 3 d64", "llama", 9, 3, 64},
                        {"mistral group 4 d128", "mistral", 8, 2, 128},
                        {"qwen2 group 7 d128", "qwen2", 7, 1, 128},
                        {"qwen3 group 5 d128", "qwen3", 10, 2, 128},
                        {"llama group 8 d128", "llama", 8, 1, 128}}) {
    auto c = tiny_config(f.architecture);
    c.heads = f.heads;
    c.kv_heads = f.kv_heads;
    c.head_dim = f.head_dim;
    c.hidden = 256;
    c.ffn = 512;
    c.layers = 3;
    const auto model = make_synthetic_model(c, tensor_type::bf16, 7);
    for (const int chunk : chunks)
      ok = check_model(f.name, model, model, gpu_weights::bf16, chunk, tokens) && ok;
  }
  return ok;
}

/// `--deterministic`: the logits of 11 sequences of unlike lengths, in one batch and each by
/// itself, prefill and decode, on two executors: bit for bit the same.
bool check_deterministic() {
  auto c = tiny_config("llama");
  c.heads = 8, c.kv_heads = 2, c.head_dim = 128, c.hidden = 256, c.ffn = 512, c.layers = 3;
  const auto model = make_synthetic_model(c, tensor_type::bf16, 7);
  constexpr int sequences = 11;
  constexpr int longest = 480;
  executor_options options;
  options.max_step_tokens = 4096;
  options.max_logit_rows = sequences;
  gpu_options gpu;
  gpu.max_sequences = sequences;
  gpu.max_context = 512;
  gpu.deterministic = true;
  solo_collective alone;
  std::mt19937 random(5);
  const auto vocab = static_cast<std::size_t>(c.vocab);
  std::vector<std::vector<std::int32_t>> prompts;
  for (int q = 0; q < sequences; ++q) {
    prompts.emplace_back(static_cast<std::size_t>(longest - q * 41));
    for (auto& id : prompts.back())
      id = static_cast<std::int32_t>(random() % static_cast<unsigned>(c.vocab));
  }
  // Prompt but its last 3 tokens, then 3 decode steps: 4 rows of logits a sequence.
  auto rows_of = [&](executor& device, const std::vector<int>& batch) {
    std::vector<float> all;
    std::vector<float> hidden(static_cast<std::size_t>(options.max_step_tokens) *
                              static_cast<std::size_t>(c.hidden));
    for (int round = 0; round < 4; ++round) {
      step s;
      std::vector<std::int32_t> ids;
      for (const int q : batch) {
        const auto& prompt = prompts[static_cast<std::size_t>(q)];
        const int begin = round == 0 ? 0 : static_cast<int>(prompt.size()) - 4 + round;
        const int end = static_cast<int>(prompt.size()) - 3 + round;
        s.entries.push_back(
            {static_cast<std::uint64_t>(q), begin, end - begin, 1, blocks_for(q, 512)});
        ids.insert(ids.end(), prompt.begin() + begin, prompt.begin() + end);
      }
      std::vector<float> logits(batch.size() * vocab);
      device.run(s, ids, hidden, logits, alone);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  };
  auto first = make_gpu_executor(model, whole(c), options, gpu);
  first->allocate_kv(sequences * 32);
  std::vector<int> everyone;
  for (int q = 0; q < sequences; ++q)
    everyone.push_back(q);
  const auto together = rows_of(*first, everyone);
  auto second = make_gpu_executor(model, whole(c), options, gpu);
  second->allocate_kv(sequences * 32);
  std::size_t unlike = 0;
  for (const int q : everyone) {
    const auto single = rows_of(*second, {q});
    for (std::size_t round = 0; round < 4; ++round)
      for (std::size_t i = 0; i < vocab; ++i)
        unlike += single[round * vocab + i] !=
                  together[(round * sequences + static_cast<std::size_t>(q)) * vocab + i];
  }
  std::printf("check deterministic: %zu of %zu logits differ between a batch of %d and of 1  %s\n",
              unlike, together.size(), sequences, unlike == 0 ? "ok" : "FAILED");
  return unlike == 0;
}

/// Steps begun before the one in front has ended, their ids the rows that choose them, against the
/// same steps one by one: the same tokens. Unlike lengths, greedy and drawn, beside a long prompt.
bool check_ahead() {
  auto c = tiny_config("llama");
  c.heads = 8, c.kv_heads = 2, c.head_dim = 128, c.hidden = 256, c.ffn = 512, c.layers = 3;
  const auto model = make_synthetic_model(c, tensor_type::bf16, 7);
  constexpr int sequences = 6;
  constexpr int steps = 40;
  executor_options options;
  options.max_step_tokens = 512;
  options.max_logit_rows = sequences;
  gpu_options gpu;
  gpu.max_sequences = sequences;
  gpu.max_context = 256;
  auto device = make_gpu_executor(model, whole(c), options, gpu);
  device->allocate_kv(sequences * 16);
  device->warm_up();
  solo_collective alone;
  std::mt19937 random(5);
  std::vector<std::int32_t> prompt(64);
  for (auto& id : prompt)
    id = static_cast<std::int32_t>(random() % static_cast<unsigned>(c.vocab));

  auto run = [&](bool ahead) {
    std::vector<std::vector<std::int32_t>> out(sequences);
    std::vector<int> length(sequences, 0), row_of(sequences, -1); // row: of the step begun before
    std::vector<std::vector<int>> begun;                          // sequences with rows, in order
    std::vector<float> none;
    auto end_one = [&] {
      std::vector<std::int32_t> tokens(begun.front().size());
      device->end_choosing(tokens, none);
      for (std::size_t r = 0; r < tokens.size(); ++r)
        out[static_cast<std::size_t>(begun.front()[r])].push_back(tokens[r]);
      begun.erase(begun.begin());
    };
    for (int n = 0; n < steps; ++n) {
      step s;
      std::vector<std::int32_t> ids;
      std::vector<row_choice> choices;
      std::vector<int> rows;
      for (int q = 0; q < sequences; ++q) {
        const auto at = static_cast<std::size_t>(q);
        if (n < 2 * q) // one after the other joins, with its prompt
          continue;
        const int tokens = n == 2 * q ? 10 * q + 1 : 1;
        if (n == 2 * q)
          ids.insert(ids.end(), prompt.begin(), prompt.begin() + tokens);
        else
          ids.push_back(ahead ? -1 - row_of[at] : out[at].back());
        s.entries.push_back(
            {static_cast<std::uint64_t>(q), length[at], tokens, 1, blocks_for(q, 256)});
        length[at] += tokens;
        row_choice w;
        w.temperature = q % 2 == 0 ? 0.0F : 0.9F;
        w.uniform = uniform_draw(7, static_cast<std::uint32_t>(q), static_cast<unsigned>(n));
        choices.push_back(w);
        rows.push_back(q);
      }
      for (std::size_t r = 0; r < rows.size(); ++r)
        row_of[static_cast<std::size_t>(rows[r])] = static_cast<int>(r);
      device->begin_choosing(s, ids, {}, choices, alone);
      begun.push_back(rows);
      if (!ahead || begun.size() == 2)
        end_one();
    }
    while (!begun.empty())
      end_one();
    return out;
  };
  const auto one_by_one = run(false);
  const auto ahead = run(true);
  const bool ok = one_by_one == ahead;
  std::printf("check ahead: the tokens of %d steps begun ahead are those of the same steps one by "
              "one  %s\n",
              steps, ok ? "ok" : "FAILED");
  return ok;
}

/// Tokens chosen on the device against the CPU's token_selector on the same logits: temperature,
/// top-k, top-p and min-p mixed, logits with ties, zeros of both signs and NaN among them.
bool check_choices() {
  auto c = tiny_config("llama");
  c.head_dim = 64;
  c.vocab = 32000;
  executor_options options;
  options.max_logit_rows = 64;
  gpu_options gpu;
  gpu.max_sequences = 64;
  gpu.max_context = 64;
  gpu.random_weights = true;
  auto device = make_gpu_executor(std::make_shared<shape_model>(c), whole(c), options, gpu);
  constexpr std::size_t rows = 64;
  const auto vocab = static_cast<std::size_t>(c.vocab);
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 3);
  constexpr int rounds = 40;
  int unlike = 0;
  for (int round = 0; round < rounds; ++round) {
    std::vector<float> logits(rows * vocab);
    for (auto& l : logits)
      l = round % 4 == 1   ? std::round(normal(random)) // many ties
          : round % 4 == 2 ? 0.01F * normal(random)     // nearly uniform
                           : normal(random);
    logits[5] = std::nanf("");
    logits[vocab + 7] = -0.0F;
    std::vector<row_choice> choices(rows);
    for (std::size_t r = 0; r < rows; ++r) {
      auto& w = choices[r];
      w.temperature = r % 8 == 0 ? 0.0F : 0.25F * static_cast<float>(random() % 8 + 1);
      w.top_k = r % 3 == 0 ? 0 : static_cast<int>(random() % (r % 3 == 1 ? 60 : most_top_k) + 1);
      w.top_p = r % 2 == 0 ? 1.0F : static_cast<float>(random() % 999 + 1) / 1000.0F;
      w.min_p = r % 5 != 0 ? 0.0F : static_cast<float>(random() % 100) / 1000.0F;
      w.uniform = uniform_draw(round, static_cast<std::uint32_t>(r), random());
    }
    std::vector<std::int32_t> got(rows);
    device->choose_from(logits, choices, got);
    token_selector selector;
    for (std::size_t r = 0; r < rows; ++r) {
      const auto row = std::span(logits).subspan(r * vocab, vocab);
      for (auto& l : row)
        if (std::isnan(l))
          l = -std::numeric_limits<float>::max();
      const auto& w = choices[r];
      const auto expected =
          w.temperature < 1e-5F
              ? token_selector::argmax(row)
              : selector.draw(row, {w.temperature, w.top_k, w.top_p, w.min_p}, w.uniform);
      unlike += expected != got[r];
    }
  }
  std::printf("check choices: %d of %d tokens differ from the CPU sampler's  %s\n", unlike,
              rounds * static_cast<int>(rows), unlike == 0 ? "ok" : "FAILED");
  return unlike == 0;
}

/// All clients' requests at once, 512 in and 128 out: prefill chunks join the decodes of a step
/// until 2,048 tokens are reached. Greedy tokens are read back and the next step is formed on the
/// host, as a server does.
void serve(gpu_executor& device, const std::string& name, const std::vector<std::int32_t>& ids,
           int clients) {
  constexpr int prompt = 512;
  constexpr int output = 128;
  constexpr int budget = 2048;
  struct request {
    int done = 0;     // positions in the KV cache
    int produced = 0; // output tokens
    std::int32_t last = 0;
    double first_s = 0;
    std::vector<std::uint32_t> blocks;
  };
  solo_collective alone;
  std::vector<float> hidden(budget * static_cast<std::size_t>(device.config().hidden));
  double wall = 0;
  std::vector<double> first_tokens;
  for (int turn = 0; turn < 2; ++turn) { // the first makes graphs and times products
    std::vector<request> requests(static_cast<std::size_t>(clients));
    for (int q = 0; q < clients; ++q)
      requests[static_cast<std::size_t>(q)].blocks = blocks_for(q, prompt + output);
    const auto begin = clock_type::now();
    for (int left = clients; left > 0;) {
      step s;
      std::vector<std::int32_t> step_ids;
      std::vector<request*> rows;
      int room = budget;
      auto add = [&](request& r, int tokens, bool wants_logits) {
        s.entries.push_back({static_cast<std::uint64_t>(&r - requests.data()), r.done, tokens,
                             wants_logits ? 1 : 0, r.blocks});
        if (wants_logits)
          rows.push_back(&r);
        r.done += tokens;
        room -= tokens;
      };
      for (auto& r : requests)
        if (r.produced > 0 && r.produced < output) {
          step_ids.push_back(r.last);
          add(r, 1, true);
        }
      for (auto& r : requests) {
        const int tokens = std::min(room, prompt - r.done);
        if (r.produced > 0 || tokens <= 0)
          continue;
        step_ids.insert(step_ids.end(), ids.begin() + r.done, ids.begin() + r.done + tokens);
        add(r, tokens, r.done + tokens == prompt);
      }
      std::vector<std::int32_t> chosen(rows.size());
      device.run_greedy(s, step_ids, hidden, chosen, alone);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        auto& r = *rows[i];
        r.last = chosen[i];
        if (++r.produced == 1)
          r.first_s = seconds_since(begin);
        left -= r.produced == output;
      }
    }
    wall = seconds_since(begin);
    first_tokens.clear();
    for (const auto& r : requests)
      first_tokens.push_back(r.first_s);
  }
  std::sort(first_tokens.begin(), first_tokens.end());
  std::printf("%s serve %3d clients: %8.1f output tok/s  first token %7.1f ms (first) %7.1f ms "
              "(median)\n",
              name.c_str(), clients, clients * output / wall, first_tokens.front() * 1e3,
              first_tokens[first_tokens.size() / 2] * 1e3);
}

/// Teacher-forced logits of a model's golden answers, at every token of them: as one prompt, and
/// token by token. A greedy token may differ from the golden one only where the reference's margin
/// is within what two logits' errors may come to: sqrt(2) of the allowed one, four times over for
/// the worst of hundreds of tokens.
bool check_golden(const std::string& model_path, const std::string& cases_path) {
  const auto model = open_model(model_path);
  const auto& config = model->config();
  const auto cases = nlohmann::json::parse(std::ifstream(cases_path)).at("cases");
  constexpr int answer = 48;
  executor_options options;
  options.kernels = kernel_kind::reference;
  options.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  options.max_step_tokens = 1024;
  options.max_logit_rows = answer;
  gpu_options gpu;
  gpu.max_sequences = 8;
  gpu.max_context = 1024;
  solo_collective alone;
  auto cpu = make_cpu_executor(model, whole(config), options);
  auto device = make_gpu_executor(model, whole(config), options, gpu);
  const auto table = blocks_for(0, 1024);
  cpu->allocate_kv(64);
  device->allocate_kv(64);
  device->warm_up();
  const auto vocab = static_cast<std::size_t>(config.vocab);
  std::vector<float> hidden(1024 * static_cast<std::size_t>(config.hidden));
  const double allowed = allowed_error(config.layers);
  double error[2] = {};
  double worst_margin = 0;
  int agreed[2] = {};
  int unlike[2] = {};
  bool ok = true;
  for (const auto& c : cases) {
    const auto golden = c.at("greedy_ids").get<std::vector<std::int32_t>>();
    const auto margins = c.at("margins").get<std::vector<float>>();
    auto ids = c.at("ids").get<std::vector<std::int32_t>>();
    const int prompt = static_cast<int>(ids.size());
    ids.insert(ids.end(), golden.begin(), golden.begin() + answer - 1);
    const int tokens = static_cast<int>(ids.size());
    std::vector<float> expected(answer * vocab);
    step all;
    all.entries = {{1, 0, tokens, answer, table}};
    cpu->run(all, ids,
             std::span(hidden).first(static_cast<std::size_t>(tokens) *
                                     static_cast<std::size_t>(config.hidden)),
             expected, alone);
    for (int way = 0; way < 2; ++way) { // as one prompt; token by token
      std::vector<float> got(answer * vocab);
      if (way == 0) {
        device->run(all, ids, hidden, got, alone);
      } else {
        for (int row = 0; row < answer; ++row) {
          const int at = row == 0 ? 0 : prompt + row - 1;
          const int n = row == 0 ? prompt : 1;
          step part;
          part.entries = {{1, at, n, 1, table}};
          device->run(
              part,
              std::span(ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n)),
              hidden, std::span(got).subspan(static_cast<std::size_t>(row) * vocab, vocab), alone);
        }
      }
      const auto e = error_of(got, expected);
      error[way] = std::max(error[way], e.relative);
      ok = ok && e.relative < allowed;
      int first = answer;
      for (int row = answer - 1; row >= 0; --row) {
        const auto begin = got.begin() + row * static_cast<std::ptrdiff_t>(vocab);
        const auto at = static_cast<std::size_t>(row);
        const auto token =
            static_cast<std::int32_t>(std::max_element(begin, begin + config.vocab) - begin);
        if (token == golden[at])
          continue;
        first = row;
        ++unlike[way];
        const double margin = static_cast<double>(margins[at]);
        const double may = 4 * std::sqrt(2.0) * allowed * e.rms;
        worst_margin = std::max(worst_margin, margin);
        ok = ok && margin < may;
        std::printf(
            "  %s %s: token %d has margin %.4f in the reference (allowed %.2f), GPU logits "
            "%.4f and %.4f, reference's %.4f and %.4f\n",
            c.at("id").get<std::string>().c_str(), way == 0 ? "as one prompt" : "token by token",
            row, margin, may, static_cast<double>(begin[golden[at]]),
            static_cast<double>(begin[token]),
            static_cast<double>(expected[at * vocab + static_cast<std::size_t>(golden[at])]),
            static_cast<double>(expected[at * vocab + static_cast<std::size_t>(token)]));
      }
      agreed[way] += first == answer;
    }
  }
  for (int way = 0; way < 2; ++way)
    std::printf("check golden, %s: relative error at most %.2e (allowed %.2e), %d of %zu answers "
                "agree, %d tokens differ\n",
                way == 0 ? "as one prompt" : "token by token", error[way], allowed, agreed[way],
                cases.size(), unlike[way]);
  std::printf("check golden: largest margin of a token that differs %.4f  %s\n", worst_margin,
              ok ? "ok" : "FAILED");
  return ok;
}

/// Teacher-forced logits of FOLDER's model against those that tools/bench/torch_logits.py left
/// there, at every position.
bool check_torch(const std::string& folder) {
  const auto model = open_model(folder);
  const auto& config = model->config();
  std::ifstream file(folder + "/torch.bin", std::ios::binary);
  auto read = [&]<class T>(std::vector<T>& to) {
    file.read(reinterpret_cast<char*>(to.data()),
              static_cast<std::streamsize>(to.size() * sizeof(T)));
  };
  std::vector<std::int32_t> sizes(2);
  read(sizes);
  if (!file || sizes[0] < 1 || sizes[0] > 2048 || sizes[1] != config.vocab)
    throw std::runtime_error(folder + "/torch.bin: not of this model");
  const int tokens = sizes[0];
  const auto count = static_cast<std::size_t>(tokens);
  const auto vocab = static_cast<std::size_t>(config.vocab);
  std::vector<std::int32_t> ids(count);
  std::vector<float> exact(count * vocab), rounded(count * vocab), got(count * vocab);
  read(ids);
  read(exact);
  read(rounded);
  if (!file)
    throw std::runtime_error(folder + "/torch.bin: too short");
  executor_options options;
  options.kernels = kernel_kind::reference;
  options.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  options.max_step_tokens = 2048;
  options.max_logit_rows = tokens;
  gpu_options gpu;
  gpu.max_sequences = 8;
  gpu.max_context = 2048;
  solo_collective alone;
  std::vector<float> hidden(count * static_cast<std::size_t>(config.hidden));
  const auto table = blocks_for(0, tokens);
  bool ok = true;
  struct errors {
    double mean = 0, worst = 0;
  };
  auto report = [&](const char* what, std::span<const float> of, std::span<const float> against,
                    const errors& limit) {
    double worst = 0, mean = 0;
    for (std::size_t t = 0; t < count; ++t) {
      const double e =
          error_of(of.subspan(t * vocab, vocab), against.subspan(t * vocab, vocab)).relative;
      worst = std::max(worst, e);
      mean += e / tokens;
    }
    const bool within = limit.worst == 0 || (mean <= limit.mean && worst <= limit.worst);
    std::printf("torch %-44s relative error of a position: mean %.2e, largest %.2e", what, mean,
                worst);
    if (limit.worst > 0)
      std::printf(" (allowed %.2e, %.2e)  %s", limit.mean, limit.worst, within ? "ok" : "FAILED");
    std::printf("\n");
    ok = ok && within;
    return errors{mean, worst};
  };
  auto run = [&](executor& device, int chunk) {
    for (int at = 0; at < tokens; at += chunk) {
      const int n = std::min(chunk, tokens - at);
      step part;
      part.entries = {{1, at, n, n, table}};
      const auto begin = static_cast<std::size_t>(at);
      device.run(part, std::span(ids).subspan(begin, static_cast<std::size_t>(n)), hidden,
                 std::span(got).subspan(begin * vocab, static_cast<std::size_t>(n) * vocab), alone);
    }
  };
  // What rounding to bf16 costs PyTorch on this model is what it may cost us.
  const auto allowed = report("bf16 against its own float32", rounded, exact, {});
  auto cpu = make_cpu_executor(model, whole(config), options);
  cpu->allocate_kv(128);
  run(*cpu, tokens);
  // Sums of float32 in another order: 2^-24 a term, of the widest product, added as noise.
  const double float_error =
      std::ldexp(1.0, -24) * std::sqrt(4.0 * config.layers * std::max(config.ffn, config.hidden));
  report("float32 against the CPU's float32", got, exact, {float_error, float_error});
  auto device = make_gpu_executor(model, whole(config), options, gpu);
  device->allocate_kv(128);
  for (const int chunk : {tokens, 37, 6, 1}) {
    run(*device, chunk);
    const auto in_chunks = " in chunks of " + std::to_string(chunk);
    report(("float32 against this GPU" + in_chunks).c_str(), got, exact, allowed);
    report(("bf16 against this GPU" + in_chunks).c_str(), got, rounded, {});
  }
  return ok;
}

enum class bench_mode { rates, decode, profile, serve };

void bench_shape(const std::string& name, double memory_tb_s, double flops_t,
                 const std::vector<int>& batches, bench_mode mode, bool deterministic,
                 gpu_weights weights_as) {
  const bool profile = mode == bench_mode::profile;
  const auto config = model_shape(name);
  auto model = std::make_shared<shape_model>(config);
  constexpr int prompt = 512;
  constexpr int output = 128;
  const int widest = *std::max_element(batches.begin(), batches.end());
  executor_options options;
  options.max_step_tokens = 2048;
  options.max_logit_rows = widest;
  gpu_options gpu;
  gpu.max_sequences = widest;
  gpu.max_context = 2048;
  gpu.random_weights = true;
  gpu.deterministic = deterministic;
  gpu.weights = weights_as;
  auto device = make_gpu_executor(model, whole(config), options, gpu);
  const auto memory = device->memory();
  std::string why;
  const auto free_bytes = list_gpus(why).front().free_bytes;
  const int each = (prompt + output + block_tokens - 1) / block_tokens;
  const auto fits = static_cast<int>((free_bytes - (2ULL << 30)) / memory.kv_block_bytes /
                                     static_cast<unsigned>(each));
  device->allocate_kv(
      static_cast<std::uint32_t>(std::max(2048 / block_tokens, std::min(fits, widest) * each)));
  solo_collective alone;
  std::mt19937 random(1);
  std::vector<std::int32_t> ids(2048);
  for (auto& id : ids)
    id = static_cast<std::int32_t>(random() % static_cast<unsigned>(config.vocab));
  if (mode == bench_mode::serve) {
    for (const int clients : batches)
      if (clients <= fits)
        serve(*device, name, ids, clients);
    return;
  }
  std::vector<float> hidden(2048 * static_cast<std::size_t>(config.hidden));
  const double weights = static_cast<double>(memory.weight_bytes) -
                         2.0 * config.vocab * config.hidden; // the embedding is looked up, not read
  const double layer_params = static_cast<double>(config.layers) * config.hidden *
                              (2.0 * config.q_width() + 2.0 * config.kv_width() + 3.0 * config.ffn);
  const double kv_per_token = static_cast<double>(memory.kv_block_bytes) / block_tokens;

  for (const int n : {512, 2048}) {
    if (mode == bench_mode::decode)
      break;
    step prefill;
    prefill.entries = {{1, 0, n, 1, blocks_for(0, n)}};
    std::vector<std::int32_t> token(1);
    const auto part = std::span(ids).first(static_cast<std::size_t>(n));
    for (int i = 0; i < 2; ++i)
      device->run_greedy(prefill, part, hidden, token, alone);
    if (profile) {
      const profiled here;
      device->run_greedy(prefill, part, hidden, token, alone);
      continue;
    }
    std::vector<double> times;
    for (int i = 0; i < 9; ++i) {
      const auto begin = clock_type::now();
      device->run_greedy(prefill, part, hidden, token, alone);
      times.push_back(seconds_since(begin));
    }
    std::nth_element(times.begin(), times.begin() + 4, times.end());
    const double flops =
        2 * layer_params * n + 2.0 * n * n * config.heads * config.head_dim * config.layers;
    std::printf("%s prefill %4d: %8.2f ms %9.0f tok/s  %6.1f TFLOP/s = %4.1f %% of %.0f\n",
                name.c_str(), n, times[4] * 1e3, n / times[4], flops / times[4] * 1e-12,
                flops / times[4] * 1e-10 / flops_t, flops_t);
  }
  for (const int batch : batches) {
    if (batch > fits) {
      std::printf("%s decode %3d: the KV of %d sequences does not fit\n", name.c_str(), batch,
                  batch);
      continue;
    }
    step s;
    std::vector<std::int32_t> first;
    for (int q = 0; q < batch; ++q) {
      s.entries.push_back(
          {static_cast<std::uint64_t>(q), prompt, 1, 1, blocks_for(q, prompt + output)});
      first.push_back(ids[static_cast<std::size_t>(q)]);
    }
    // Large shapes take long: their steps vary less.
    const int steps = config.layers > 40 ? 31 : output - 1;
    const int runs = config.layers > 40 ? 3 : 5;
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(steps * batch));
    device->decode_greedy(s, first, steps, tokens); // makes the graph, times the products
    if (profile) {
      const profiled here;
      device->decode_greedy(s, first, 1, std::span(tokens).first(static_cast<std::size_t>(batch)));
      continue;
    }
    std::vector<double> times;
    for (int i = 0; i < runs; ++i) {
      const auto begin = clock_type::now();
      device->decode_greedy(s, first, steps, tokens);
      times.push_back(seconds_since(begin));
    }
    std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
    const double step_s = times[static_cast<std::size_t>(runs / 2)] / steps;
    const double bytes = weights + batch * kv_per_token * (prompt + (steps + 1) / 2.0);
    const double limit = batch / (bytes / (memory_tb_s * 1e12));
    // The same through run_greedy: host work, upload and read-back of every step.
    std::vector<std::int32_t> chosen(static_cast<std::size_t>(batch));
    device->run_greedy(s, first, hidden, chosen, alone);
    const auto begin = clock_type::now();
    for (int i = 0; i < 30; ++i)
      device->run_greedy(s, first, hidden, chosen, alone);
    const double stepped = seconds_since(begin) / 30;
    std::printf("%s decode %3d: %8.3f ms/step %9.1f tok/s  limit %9.1f = %5.1f %%   stepped from "
                "the host %8.3f ms\n",
                name.c_str(), batch, step_s * 1e3, batch / step_s, limit,
                100 * batch / step_s / limit, stepped * 1e3);
  }
}

int run(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc == 3 && std::string(argv[1]) == "torch") // its first half needs no GPU
    return check_torch(argv[2]) ? 0 : 1;
  std::string why;
  const auto gpus = list_gpus(why);
  if (gpus.empty()) {
    std::fprintf(stderr, "bench_gpu: no usable GPU: %s\n", why.c_str());
    return 1;
  }
  std::printf("%s, %d multiprocessors, %.1f GiB\n", gpus[0].name.c_str(), gpus[0].multiprocessors,
              static_cast<double>(gpus[0].memory_bytes) / (1 << 30));
  // Measured ceilings: dense bf16 about 800 TFLOP/s on both; memory by card.
  const double memory = gpus[0].name.find("H200") != std::string::npos ? 4.64 : 3.0;
  bool ok = true;
  if (argc == 4 && std::string(argv[1]) == "golden")
    return check_golden(argv[2], argv[3]) ? 0 : 1;
  // bench_gpu golden MODEL tests/golden/smollm2.json, bench_gpu torch FOLDER, or
  // bench_gpu [check | racecheck | llama-2-7b | llama-3-8b | llama-2-70b] [decode | profile |
  // serve] [deterministic] [fp8 | int4] [batch...]; racecheck: what compute-sanitizer's tool of
  // that name gets through, without cuBLASLt
  std::string only;
  auto mode = bench_mode::rates;
  bool deterministic = false;
  auto weights = gpu_weights::bf16;
  std::vector<int> batches;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "profile")
      mode = bench_mode::profile;
    else if (argument == "decode")
      mode = bench_mode::decode;
    else if (argument == "serve")
      mode = bench_mode::serve;
    else if (argument == "deterministic")
      deterministic = true;
    else if (argument == "fp8")
      weights = gpu_weights::fp8;
    else if (argument == "int4")
      weights = gpu_weights::int4;
    else if (const int batch = std::atoi(argv[i]); batch > 0)
      batches.push_back(std::min(batch, 1024));
    else
      only = argument;
  }
  if (batches.empty())
    batches = {1, 8, 32, 64, 128, 256};
  if (only.empty() || only == "check")
    ok = check_choices() && check_ahead() && check_batches() && checks(150, {150, 37, 13, 6, 1}) &&
         check_rounded(150, {150, 37, 20, 6, 1}) && check_deterministic();
  if (only == "racecheck")
    ok = checks(12, {12, 3, 1}) && check_rounded(12, {3, 1});
  for (const char* name : {"llama-2-7b", "llama-3-8b"})
    if (only.empty() || only == name)
      bench_shape(name, memory, 800, batches, mode, deterministic, weights);
  if (only == "llama-2-70b")
    bench_shape(only, memory, 800, batches, mode, deterministic, weights);
  return ok ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fflush(stdout);
    std::fprintf(stderr, "bench_gpu: %s\n", e.what());
    return 1;
  }
}
