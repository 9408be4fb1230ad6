// Loading a shard on the CPU: what it needs, whether it fits the model, then the executor.
#include "compute/cpu/cpu_executor.hpp"

#include <stdexcept>

namespace hexgen::compute {

namespace {

void require(bool holds, const char* what) {
  if (!holds)
    throw std::invalid_argument(std::string("make_cpu_executor: ") + what);
}

void check(const model_config& c, const shard& s, const executor_options& o) {
  constexpr int most_head_dim = 512;
  constexpr int most_kv_heads = 256;
  constexpr int most_threads = 1024;
  constexpr int most_tokens = 1 << 16;
  const int leaves = static_cast<int>(ffn_leaf_cuts(c).size()) - 1;
  const auto within = [](int begin, int end, int size) {
    return 0 <= begin && begin <= end && end <= size;
  };
  require(c.head_dim >= 2 && c.head_dim <= most_head_dim && c.head_dim % 2 == 0,
          "head_dim must be even and at most 512");
  require(c.kv_heads >= 1 && c.kv_heads <= most_kv_heads && c.heads % c.kv_heads == 0,
          "heads must be a multiple of at most 256 KV heads");
  require(s.layers >= 1 && s.first_layer >= 0 && s.first_layer <= c.layers - s.layers,
          "layers out of range");
  require(s.degree >= 1 && s.rank >= 0 && s.rank < s.degree, "rank out of range");
  require(within(s.kv_head_begin, s.kv_head_end, c.kv_heads), "KV heads out of range");
  require(within(s.ffn_leaf_begin, s.ffn_leaf_end, leaves), "FFN leaves out of range");
  require(within(s.vocab_begin, s.vocab_end, c.vocab), "vocabulary rows out of range");
  require(o.threads >= 1 && o.threads <= most_threads, "threads out of range");
  require(o.max_step_tokens >= 1 && o.max_step_tokens <= most_tokens,
          "max_step_tokens out of range");
  require(o.max_logit_rows >= 1 && o.max_logit_rows <= most_tokens, "max_logit_rows out of range");
}

} // namespace

executor_memory cpu_executor_memory(const model_file& model, const shard& part,
                                    const executor_options& options) {
  check(model.config(), part, options);
  arena weights;
  arena working;
  executor_options quiet = options;
  quiet.progress = nullptr;
  static_cast<void>(load_shard(model, part, quiet, weights));
  static_cast<void>(activations(model.config(), part, options, working));
  const kv_layout layout{options.kv, model.config().head_dim};
  const auto heads = static_cast<std::size_t>(part.kv_head_end - part.kv_head_begin);
  return {weights.used(), working.used(),
          layout.head_bytes() * heads * static_cast<std::size_t>(part.layers)};
}

std::unique_ptr<executor> make_cpu_executor(std::shared_ptr<const model_file> model,
                                            const shard& part, const executor_options& options) {
  const auto planned = cpu_executor_memory(*model, part, options);
  return std::make_unique<cpu_executor>(std::move(model), part, options, planned);
}

} // namespace hexgen::compute
