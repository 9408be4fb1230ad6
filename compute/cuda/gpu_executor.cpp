// The model graph on one GPU: a shard's layers over paged KV, in one stream.
#include "compute/cpu/rope.hpp"
#include "compute/cuda/attention.hpp"
#include "compute/cuda/choose.hpp"
#include "compute/cuda/gemm.hpp"
#include "compute/cuda/kernels.hpp"
#include "compute/cuda/skinny.hpp"
#include "compute/cuda/step_buffers.hpp"
#include "compute/cuda/weights.hpp"
#include "compute/cuda_backend.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>

namespace hexgen::compute {
namespace cuda {
namespace {

class graph {
public:
  explicit graph(cudaGraph_t captured) {
    HEXGEN_CUDA_CHECK(cudaGraphInstantiate(&exec_, captured, 0));
    HEXGEN_CUDA_CHECK(cudaGraphDestroy(captured));
  }
  graph(const graph&) = delete;
  graph& operator=(const graph&) = delete;
  ~graph() { cudaGraphExecDestroy(exec_); }
  void launch(cudaStream_t stream) const { HEXGEN_CUDA_CHECK(cudaGraphLaunch(exec_, stream)); }

private:
  cudaGraphExec_t exec_ = nullptr;
};

/// Values of the largest matrix, which wide steps bring to bf16 when it is kept in less.
std::size_t widened_values(const model_config& config, const shard& part, gpu_weights type) {
  if (type == gpu_weights::bf16)
    return 0;
  const auto local = local_shape::of(config, part);
  const int rows = std::max({2 * local.ffn, (local.heads + 2 * local.kv_heads) * config.head_dim,
                             part.last ? local.vocab : 0});
  return static_cast<std::size_t>(config.hidden) *
         static_cast<std::size_t>(std::max(rows, local.heads * config.head_dim));
}

class executor_on_gpu final : public gpu_executor {
public:
  executor_on_gpu(std::shared_ptr<const model_file> model, const shard& part,
                  const executor_options& options, const gpu_options& gpu)
      : model_(std::move(model)), config_(model_->config()), part_(part), options_(options),
        gpu_(gpu), local_(local_shape::of(config_, part)), stream_(make_stream(gpu.ordinal)),
        weights_(
            config_, part,
            {gpu.random_weights ? nullptr : model_.get(), gpu.weights, gpu.seed, options.progress},
            stream_),
        buffers_({options.max_step_tokens, gpu.max_sequences,
                  std::max(options.max_logit_rows, gpu.max_sequences),
                  (gpu.max_context + block_tokens - 1) / block_tokens, gpu.max_sequences}) {
    gemm_.set_timed(!gpu.deterministic);
    const auto t =
        static_cast<std::size_t>(padded(std::max(options.max_step_tokens, logit_capacity())));
    const auto h = static_cast<std::size_t>(config_.hidden);
    hidden_ = device_buffer<float>(t * h);
    normed_ = device_buffer<__nv_bfloat16>(t * h);
    delta_ = device_buffer<__nv_bfloat16>(t * h);
    qkv_ = device_buffer<__nv_bfloat16>(t * static_cast<std::size_t>(qkv_width()));
    attended_ = device_buffer<__nv_bfloat16>(t * static_cast<std::size_t>(q_width()));
    gate_up_ = device_buffer<__nv_bfloat16>(t * 2 * static_cast<std::size_t>(local_.ffn));
    activated_ = device_buffer<__nv_bfloat16>(t * static_cast<std::size_t>(local_.ffn));
    widened_ = device_buffer<__nv_bfloat16>(widened_values(config_, part, gpu.weights));
    scratch_ = device_buffer<float>(
        decode_scratch_floats(gpu.max_sequences, local_.heads, config_.head_dim));
    squares_ = device_buffer<float>(widest_few_rows * h / 16);
    make_shared_sums();
    splits_ended_ = device_buffer<unsigned>(static_cast<std::size_t>(gpu.max_sequences) *
                                            static_cast<std::size_t>(local_.kv_heads));
    HEXGEN_CUDA_CHECK(cudaMemset(splits_ended_.data(), 0, splits_ended_.bytes()));
    if (part.last) {
      logits_ = device_buffer<float>(static_cast<std::size_t>(padded(logit_capacity())) *
                                     static_cast<std::size_t>(local_.vocab));
      host_logits_ = pinned_buffer<float>(static_cast<std::size_t>(logit_capacity()) *
                                          static_cast<std::size_t>(local_.vocab));
    }
    host_hidden_ = pinned_buffer<float>(t * h);
    for (auto& side : choosing_) {
      side.tokens = pinned_buffer<std::int32_t>(static_cast<std::size_t>(logit_capacity()));
      side.choices = pinned_buffer<row_choice>(static_cast<std::size_t>(logit_capacity()));
      HEXGEN_CUDA_CHECK(cudaEventCreateWithFlags(&side.done, cudaEventDisableTiming));
    }
    HEXGEN_CUDA_CHECK(cudaStreamCreateWithFlags(&side_, cudaStreamNonBlocking));
    HEXGEN_CUDA_CHECK(cudaEventCreateWithFlags(&fork_, cudaEventDisableTiming));
    HEXGEN_CUDA_CHECK(cudaEventCreateWithFlags(&join_, cudaEventDisableTiming));
    choices_ = device_buffer<row_choice>(static_cast<std::size_t>(logit_capacity()));
    make_rope_table();
  }

  ~executor_on_gpu() override {
    cudaStreamSynchronize(stream_);
    graphs_.clear();
    for (auto event : {choosing_[0].done, choosing_[1].done, fork_, join_})
      cudaEventDestroy(event);
    cudaStreamDestroy(side_);
    cudaStreamDestroy(stream_);
  }

  [[nodiscard]] const model_config& config() const override { return config_; }
  [[nodiscard]] const shard& part() const override { return part_; }
  [[nodiscard]] executor_memory memory() const override {
    return gpu_executor_memory(config_, part_, options_, gpu_);
  }

  void allocate_kv(std::uint32_t blocks) override {
    HEXGEN_CUDA_CHECK(cudaSetDevice(gpu_.ordinal));
    graphs_.clear();
    blocks_ = blocks;
    pool_ = device_buffer<__nv_bfloat16>(2 * static_cast<std::size_t>(part_.layers) * blocks *
                                         block_values());
  }

  /// Times the products of every width and makes the decode graphs, so that no request waits for
  /// them. What the pool and the other buffers hold afterwards does not matter.
  void warm_up() override {
    HEXGEN_CUDA_CHECK(cudaSetDevice(gpu_.ordinal));
    if (blocks_ == 0 || part_.layers == 0)
      return;
    solo_collective alone;
    const auto values = static_cast<std::size_t>(options_.max_step_tokens) *
                        static_cast<std::size_t>(config_.hidden);
    std::vector<float> hidden(part_.first ? 0 : values, 0.01F);
    std::vector<std::int32_t> ids;
    const int longest = std::min(
        gpu_.max_context, static_cast<int>(std::min<std::uint32_t>(blocks_, 4096U)) * block_tokens);
    auto run_one = [&](int tokens, int each) {
      step s;
      ids.clear();
      for (int left = tokens; left > 0;) {
        step_entry e;
        e.sequence = s.entries.size();
        e.tokens = std::min(left, each);
        e.logits = part_.last ? 1 : 0;
        for (int b = 0; b * block_tokens < e.tokens; ++b)
          e.blocks.push_back(static_cast<std::uint32_t>(b));
        left -= e.tokens;
        s.entries.push_back(std::move(e));
      }
      if (static_cast<int>(s.entries.size()) > gpu_.max_sequences)
        return;
      for (int i = 0; i < tokens && part_.first; ++i)
        ids.push_back(static_cast<std::int32_t>((7919LL * i + 13) % config_.vocab));
      forward(s, ids, hidden, alone);
      HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    };
    // The widest first: its work wakes the GPU's clocks, without which timings mislead.
    std::vector<int> widths;
    for (int tokens = 1; tokens <= options_.max_step_tokens; tokens = padded(tokens) + 1)
      widths.push_back(std::min(padded(tokens), options_.max_step_tokens));
    for (auto width = widths.rbegin(); width != widths.rend(); ++width)
      run_one(*width, longest);
    const bool whole = part_.first && part_.last && part_.degree == 1;
    for (int count = 1; count <= std::min(gpu_.max_sequences, options_.max_step_tokens);
         count = bucket(count) + 1) {
      run_one(bucket(count), 1);
      const int most = splits_for(bucket(count), gpu_.max_context);
      for (int splits = 1; whole && splits <= most; splits *= 2)
        decode_graph(bucket(count), splits, false);
    }
  }

  void run(const step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
           std::span<float> logits, collective& group) override {
    forward(s, ids, hidden, group);
    if (!part_.last) {
      download_hidden(s, hidden);
      return;
    }
    const int rows = s.logit_rows();
    if (rows > 0)
      download_logits(rows, logits, group);
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
  }

  void run_greedy(const step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
                  std::span<std::int32_t> tokens, collective& group) override {
    if (!part_.last || part_.degree != 1)
      throw std::invalid_argument("run_greedy serves a last stage of degree 1");
    forward(s, ids, hidden, group);
    const auto rows = static_cast<std::size_t>(s.logit_rows());
    argmax(logits_.data(), buffers_.device().chosen, static_cast<int>(rows), local_.vocab, stream_);
    auto& host = choosing_[0].tokens;
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(host.data(), buffers_.device().chosen,
                                      rows * sizeof(std::int32_t), cudaMemcpyDeviceToHost,
                                      stream_));
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    std::copy_n(host.data(), rows, tokens.begin());
  }

  [[nodiscard]] bool chooses_tokens() const override { return part_.last && part_.degree == 1; }

  void begin_choosing(const step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
                      std::span<const row_choice> choices, collective& group) override {
    if (!chooses_tokens() || begun_ - ended_ >= choosing_.size())
      throw std::invalid_argument("begin_choosing serves a last stage of degree 1, two steps deep");
    forward(s, ids, hidden, group);
    auto& side = choosing_[begun_ % choosing_.size()];
    side.rows = static_cast<std::size_t>(s.logit_rows());
    choose_rows(side, choices);
    const auto width = static_cast<std::size_t>(local_.vocab);
    for (std::size_t r = 0; r < side.rows; ++r)
      if (choices[r].on_host)
        HEXGEN_CUDA_CHECK(cudaMemcpyAsync(host_logits_.data() + r * width,
                                          logits_.data() + r * width, width * sizeof(float),
                                          cudaMemcpyDeviceToHost, stream_));
    HEXGEN_CUDA_CHECK(cudaEventRecord(side.done, stream_));
    ++begun_;
  }

  [[nodiscard]] bool chosen() override {
    HEXGEN_CUDA_CHECK(cudaSetDevice(gpu_.ordinal));
    const auto status = cudaEventQuery(choosing_[ended_ % choosing_.size()].done);
    if (status != cudaErrorNotReady)
      HEXGEN_CUDA_CHECK(status);
    return status == cudaSuccess;
  }

  void end_choosing(std::span<std::int32_t> tokens, std::span<float> logits) override {
    HEXGEN_CUDA_CHECK(cudaSetDevice(gpu_.ordinal));
    const auto& side = choosing_[ended_ % choosing_.size()];
    HEXGEN_CUDA_CHECK(cudaEventSynchronize(side.done));
    ++ended_;
    std::copy_n(side.tokens.data(), side.rows, tokens.begin());
    const auto width = static_cast<std::size_t>(local_.vocab);
    for (std::size_t r = 0; r < side.rows; ++r)
      if (side.choices[r].on_host)
        std::copy_n(host_logits_.data() + r * width, width,
                    logits.begin() + static_cast<std::ptrdiff_t>(r * width));
  }

  void choose_from(std::span<const float> logits, std::span<const row_choice> choices,
                   std::span<std::int32_t> tokens) override {
    HEXGEN_CUDA_CHECK(cudaSetDevice(gpu_.ordinal));
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(logits_.data(), logits.data(), logits.size_bytes(),
                                      cudaMemcpyHostToDevice, stream_));
    auto& side = choosing_[begun_ % choosing_.size()];
    side.rows = choices.size();
    choose_rows(side, choices);
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    std::copy_n(side.tokens.data(), choices.size(), tokens.begin());
  }

  void decode_greedy(const step& s, std::span<const std::int32_t> ids, int steps,
                     std::span<std::int32_t> tokens) override {
    if (!part_.first || !part_.last || part_.degree != 1)
      throw std::invalid_argument("decode_greedy serves a whole model of degree 1");
    HEXGEN_CUDA_CHECK(cudaSetDevice(gpu_.ordinal));
    const int count = static_cast<int>(s.entries.size());
    buffers_.fill(s, ids, blocks_, 0);
    if (buffers_.decodes() != count || buffers_.logit_rows() != count)
      throw std::invalid_argument("decode_greedy wants one token and one logit row an entry");
    const auto wanted = static_cast<std::size_t>(steps) * static_cast<std::size_t>(count);
    if (history_.size() < wanted) {
      graphs_.clear();
      history_ = device_buffer<std::int32_t>(wanted);
      counter_ = device_buffer<std::int32_t>(1);
    }
    HEXGEN_CUDA_CHECK(cudaMemsetAsync(counter_.data(), 0, sizeof(std::int32_t), stream_));
    buffers_.upload(stream_);
    const auto& g = decode_graph(count, splits_for(count, buffers_.longest() + steps), true);
    for (int i = 0; i < steps; ++i)
      g.launch(stream_);
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(tokens.data(), history_.data(), wanted * sizeof(std::int32_t),
                                      cudaMemcpyDeviceToHost, stream_));
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
  }

private:
  /// A step that is begun: its choices and tokens in pinned memory.
  struct choosing {
    pinned_buffer<row_choice> choices;
    pinned_buffer<std::int32_t> tokens;
    cudaEvent_t done = nullptr;
    std::size_t rows = 0;
  };

  static cudaStream_t make_stream(int ordinal) {
    HEXGEN_CUDA_CHECK(cudaSetDevice(ordinal));
    cudaStream_t stream = nullptr;
    HEXGEN_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
  }

  [[nodiscard]] int q_width() const { return local_.heads * config_.head_dim; }
  [[nodiscard]] int qkv_width() const {
    return (local_.heads + 2 * local_.kv_heads) * config_.head_dim;
  }
  [[nodiscard]] std::size_t block_values() const {
    return static_cast<std::size_t>(block_tokens) * static_cast<std::size_t>(local_.kv_heads) *
           static_cast<std::size_t>(config_.head_dim);
  }
  [[nodiscard]] int logit_capacity() const {
    return std::max(options_.max_logit_rows, gpu_.max_sequences);
  }
  [[nodiscard]] __nv_bfloat16* k_pool(int layer) const {
    return pool_.data() + 2 * static_cast<std::size_t>(layer) * blocks_ * block_values();
  }
  [[nodiscard]] __nv_bfloat16* v_pool(int layer) const {
    return k_pool(layer) + static_cast<std::size_t>(blocks_) * block_values();
  }

  void make_shared_sums() {
    if (!has_broad_products())
      return;
    HEXGEN_CUDA_CHECK(
        cudaDeviceGetAttribute(&sums_.blocks, cudaDevAttrMultiProcessorCount, gpu_.ordinal));
    sums_.blocks *= 2;
    sum_parts_ = device_buffer<float>(shared_sum_floats(sums_.blocks));
    const int tallest =
        std::max({2 * local_.ffn, qkv_width(), config_.hidden, part_.last ? local_.vocab : 0});
    sums_ended_ = device_buffer<unsigned>(static_cast<std::size_t>(tallest) / 64 + 1);
    HEXGEN_CUDA_CHECK(cudaMemset(sums_ended_.data(), 0, sums_ended_.bytes()));
    sums_.parts = sum_parts_.data();
    sums_.ended = sums_ended_.data();
  }

  void make_rope_table() {
    const rope_table table(config_);
    const auto d = static_cast<std::size_t>(config_.head_dim);
    std::vector<float> rows(static_cast<std::size_t>(gpu_.max_context) * d);
    for (int p = 0; p < gpu_.max_context; ++p)
      table.fill(p, rows.data() + static_cast<std::size_t>(p) * d);
    rope_ = device_buffer<float>(rows.size());
    HEXGEN_CUDA_CHECK(cudaMemcpy(rope_.data(), rows.data(), rope_.bytes(), cudaMemcpyHostToDevice));
  }

  static constexpr int deterministic_rows = 128;

  /// The rows that cuBLASLt is asked for, so that few shapes are timed however steps vary. Buffers
  /// have room; what the rows past `m` hold does not matter.
  [[nodiscard]] int padded(int m) const {
    const int to = gpu_.deterministic ? deterministic_rows
                   : m <= 64          ? 8
                   : m <= 256         ? 32
                   : m <= 1024        ? 128
                                      : 256;
    return (m + to - 1) / to * to;
  }

  template <class Y>
  void product(const __nv_bfloat16* x, const weight_matrix& w, Y* y, int m) {
    if (few(w, m)) {
      skinny(x, w, y, m, {}, sums_, stream_);
      return;
    }
    const int n = w.rows;
    const int k = w.columns;
    const auto* values = w.bf16();
    if (w.type != gpu_weights::bf16) {
      dequantize(w, widened_.data(), stream_);
      values = widened_.data();
    }
    if (!gpu_.deterministic) {
      gemm_.run(x, values, y, padded(m), n, k, n, stream_);
      return;
    }
    // One algorithm for every batch: whole runs of rows, each row by itself.
    for (int row = 0; row < m; row += deterministic_rows)
      gemm_.run(x + static_cast<std::size_t>(row) * k, values,
                y + static_cast<std::size_t>(row) * n, deterministic_rows, n, k, n, stream_);
  }
  [[nodiscard]] bool few(const weight_matrix& w, int m) const {
    return !gpu_.deterministic && m <= skinny_rows_max(w, sums_);
  }

  /// Queues the choice of tokens from logits_ and their way to the host.
  void choose_rows(choosing& side, std::span<const row_choice> choices) {
    std::copy_n(choices.begin(), side.rows, side.choices.data());
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(choices_.data(), side.choices.data(),
                                      side.rows * sizeof(row_choice), cudaMemcpyHostToDevice,
                                      stream_));
    choose(logits_.data(), choices_.data(), buffers_.device().chosen, static_cast<int>(side.rows),
           local_.vocab, stream_);
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(side.tokens.data(), buffers_.device().chosen,
                                      side.rows * sizeof(std::int32_t), cudaMemcpyDeviceToHost,
                                      stream_));
  }

  /// Sums delta over the ranks, in rank order on every rank.
  void reduce(int tokens, collective& group) {
    if (group.degree() == 1)
      return;
    const auto values = static_cast<std::size_t>(tokens) * static_cast<std::size_t>(config_.hidden);
    std::vector<std::uint16_t> mine(values);
    HEXGEN_CUDA_CHECK(
        cudaMemcpyAsync(mine.data(), delta_.data(), values * 2, cudaMemcpyDeviceToHost, stream_));
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    const auto ranks = static_cast<std::size_t>(group.degree());
    std::vector<std::vector<std::uint16_t>> parts(ranks, std::vector<std::uint16_t>(values));
    std::vector<std::span<std::byte>> all;
    for (auto& p : parts)
      all.push_back(std::as_writable_bytes(std::span<std::uint16_t>(p)));
    group.all_gather(std::as_bytes(std::span<const std::uint16_t>(mine)), all);
    auto* sum = host_hidden_.data();
    for (std::size_t i = 0; i < values; ++i) {
      float total = 0;
      for (const auto& p : parts) {
        const std::uint32_t bits = static_cast<std::uint32_t>(p[i]) << 16;
        float value = 0;
        std::memcpy(&value, &bits, sizeof value);
        total += value;
      }
      sum[i] = total;
    }
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(reduced().data(), sum, values * sizeof(float),
                                      cudaMemcpyHostToDevice, stream_));
    narrow(reduced().data(), delta_.data(), values, stream_);
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
  }
  device_buffer<float>& reduced() {
    if (reduced_.size() == 0)
      reduced_ = device_buffer<float>(hidden_.size());
    return reduced_;
  }

  /// Parts of the longest sequence's positions: blocks for the whole chip at once (two each), at
  /// least a page a warp. Deterministic: as many fixed parts as the longest needs.
  [[nodiscard]] int splits_for(int sequences, int longest) const {
    constexpr int wanted_blocks = 132 * 2;
    const int pages = (longest + block_tokens - 1) / block_tokens;
    if (gpu_.deterministic)
      return std::clamp((pages + pages_each() - 1) / pages_each(), 1, max_kv_splits);
    const int fill = wanted_blocks / std::max(1, sequences * local_.kv_heads);
    return std::clamp(std::min(fill, pages / 4), 1, max_kv_splits);
  }
  [[nodiscard]] int pages_each() const {
    if (!gpu_.deterministic)
      return 0; // even parts
    const int pages = (gpu_.max_context + block_tokens - 1) / block_tokens;
    return std::max(16, (pages + max_kv_splits - 1) / max_kv_splits);
  }

  /// Rotation, KV write and attention of layer `i`: qkv_ to attended_. `in_one`: one kernel for
  /// all, in a graph; its blocks turn a query again for every split of its positions.
  void attend(int i, int tokens, int decodes, int splits, int tiles, bool in_graph, bool in_one) {
    const auto& a = buffers_.device();
    const auto& w = weights_.layers()[static_cast<std::size_t>(i)];
    rope_store r;
    r.qkv = qkv_.data();
    r.k_pool = k_pool(i);
    r.v_pool = v_pool(i);
    r.table = rope_.data();
    r.bias = w.qkv_bias;
    r.q_norm = w.q_norm;
    r.k_norm = w.k_norm;
    r.positions = a.positions;
    r.slots = a.slots;
    r.heads = local_.heads;
    r.kv_heads = local_.kv_heads;
    r.head_dim = config_.head_dim;
    r.interleaved = config_.rope_interleaved;
    r.epsilon = config_.norm_epsilon;
    if (!in_one)
      rotate_and_store(r, tokens, stream_);
    const paged_kv kv{k_pool(i),       v_pool(i),       a.tables, buffers_.table_stride(),
                      local_.kv_heads, config_.head_dim};
    // One reads memory and the other multiplies: side by side they take less than in turn.
    const bool both = decodes > 0 && tiles > 0;
    const cudaStream_t beside = both ? side_ : stream_;
    if (both) {
      HEXGEN_CUDA_CHECK(cudaEventRecord(fork_, stream_));
      HEXGEN_CUDA_CHECK(cudaStreamWaitEvent(side_, fork_, 0));
    }
    if (decodes > 0)
      decode_attention(qkv_.data(), qkv_width(), attended_.data(), kv, in_one ? &r : nullptr,
                       a.decode_rows, a.lengths, decodes, local_.heads, splits, pages_each(),
                       in_graph, scratch_.data(), splits_ended_.data(), beside);
    prefill_attention(qkv_.data(), qkv_width(), attended_.data(), kv, a.runs, a.tiles, tiles,
                      local_.heads, stream_);
    if (both) {
      HEXGEN_CUDA_CHECK(cudaEventRecord(join_, side_));
      HEXGEN_CUDA_CHECK(cudaStreamWaitEvent(stream_, join_, 0));
    }
  }

  /// Whether launch_few_rows() takes a decode step's products.
  [[nodiscard]] bool few_rows(int tokens) const {
    return part_.layers > 0 && few(weights_.head(), tokens) &&
           std::all_of(weights_.layers().begin(), weights_.layers().end(),
                       [&](const layer_weights& w) {
                         return few(w.qkv, tokens) && few(w.output, tokens) &&
                                few(w.gate_up, tokens) && few(w.down, tokens);
                       });
  }

  /// A decode step of a whole model, from ids to logits. Products add to hidden themselves and
  /// leave the norm behind them to the next: it is given hidden times the norm's weight and what to
  /// divide its sums by.
  void launch_few_rows(int tokens, int splits) {
    const pending_norm norm{squares_.data(), config_.norm_epsilon};
    const auto& a = buffers_.device();
    embed(
        weights_.embedding(), a.ids, a.chosen,
        {hidden_.data(), weights_.layers().front().attention_norm, normed_.data(), squares_.data()},
        tokens, config_.hidden, stream_);
    for (int i = 0; i < part_.layers; ++i) {
      const auto& w = weights_.layers()[static_cast<std::size_t>(i)];
      skinny(normed_.data(), w.qkv, qkv_.data(), tokens, norm, sums_, stream_);
      attend(i, tokens, tokens, splits, 0, true, tokens <= 8);
      skinny_add(attended_.data(), w.output,
                 {hidden_.data(), w.ffn_norm, normed_.data(), squares_.data()}, tokens, sums_,
                 stream_);
      skinny_swiglu(normed_.data(), w.gate_up, activated_.data(), tokens, norm, sums_, stream_);
      const float* next = i + 1 < part_.layers
                              ? weights_.layers()[static_cast<std::size_t>(i) + 1].attention_norm
                              : weights_.output_norm();
      skinny_add(activated_.data(), w.down, {hidden_.data(), next, normed_.data(), squares_.data()},
                 tokens, sums_, stream_);
    }
    skinny(normed_.data(), weights_.head(), logits_.data(), tokens, norm, sums_, stream_);
  }

  /// Layers, and on the last stage the head's logits of `logit_rows` rows. `in_graph`: no kernel of
  /// this step but the layers' own writes KV.
  void launch_layers(int tokens, int decodes, int splits, int tiles, int logit_rows, bool in_graph,
                     collective& group) {
    const auto& a = buffers_.device();
    const int h = config_.hidden;
    const __nv_bfloat16* pending = nullptr; // a product not yet added to hidden
    for (int i = 0; i < part_.layers; ++i) {
      const auto& w = weights_.layers()[static_cast<std::size_t>(i)];
      rms_norm(hidden_.data(), pending, w.attention_norm, normed_.data(), nullptr, tokens, h,
               config_.norm_epsilon, stream_);
      product(normed_.data(), w.qkv, qkv_.data(), tokens);
      attend(i, tokens, decodes, splits, tiles, in_graph, false);
      product(attended_.data(), w.output, delta_.data(), tokens);
      reduce(tokens, group);
      rms_norm(hidden_.data(), delta_.data(), w.ffn_norm, normed_.data(), nullptr, tokens, h,
               config_.norm_epsilon, stream_);
      if (few(w.gate_up, tokens)) {
        skinny_swiglu(normed_.data(), w.gate_up, activated_.data(), tokens, {}, sums_, stream_);
      } else {
        product(normed_.data(), w.gate_up, gate_up_.data(), tokens);
        swiglu(gate_up_.data(), activated_.data(), tokens, local_.ffn, stream_);
      }
      product(activated_.data(), w.down, delta_.data(), tokens);
      reduce(tokens, group);
      pending = delta_.data();
    }
    if (!part_.last) {
      add(hidden_.data(), pending, static_cast<std::size_t>(tokens) * static_cast<std::size_t>(h),
          stream_);
      return;
    }
    if (logit_rows == 0)
      return;
    add(hidden_.data(), pending, static_cast<std::size_t>(tokens) * static_cast<std::size_t>(h),
        stream_);
    rms_norm(hidden_.data(), nullptr, weights_.output_norm(), normed_.data(), a.logit_rows,
             logit_rows, h, config_.norm_epsilon, stream_);
    product(normed_.data(), weights_.head(), logits_.data(), logit_rows);
  }

  const graph& decode_graph(int sequences, int splits, bool with_choice) {
    auto& g = graphs_[{sequences, splits, with_choice}];
    if (g)
      return *g;
    // Products time their algorithms on first use, which a capture may not hold: run once before.
    solo_collective alone;
    const auto& a = buffers_.device();
    auto step = [&] {
      if (few_rows(sequences)) {
        launch_few_rows(sequences, splits);
        return;
      }
      embed(weights_.embedding(), a.ids, a.chosen, hidden_.data(), sequences, config_.hidden,
            stream_);
      launch_layers(sequences, sequences, splits, 0, sequences, true, alone);
    };
    auto launch = [&] {
      step();
      if (with_choice) {
        argmax(logits_.data(), a.chosen, sequences, local_.vocab, stream_);
        advance({a.chosen, a.ids, a.positions, a.lengths, a.slots, a.tables,
                 buffers_.table_stride(), history_.data(), counter_.data(), sequences},
                stream_);
      }
    };
    step();
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    HEXGEN_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    launch();
    cudaGraph_t captured = nullptr;
    HEXGEN_CUDA_CHECK(cudaStreamEndCapture(stream_, &captured));
    g = std::make_unique<graph>(captured);
    return *g;
  }

  /// The next batch size that has a graph: powers of two up to 8, then multiples of 8, of 32.
  [[nodiscard]] int bucket(int sequences) const {
    int b = sequences;
    if (sequences <= 8) {
      b = 1;
      while (b < sequences)
        b *= 2;
    } else if (sequences <= 64) {
      b = (sequences + 7) / 8 * 8;
    } else {
      b = (sequences + 31) / 32 * 32;
    }
    return std::min({b, gpu_.max_sequences, options_.max_step_tokens});
  }

  void forward(const step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
               collective& group) {
    HEXGEN_CUDA_CHECK(cudaSetDevice(gpu_.ordinal));
    const int count = static_cast<int>(s.entries.size());
    const bool decode_only = s.tokens() == count && s.logit_rows() == count && s.copies.empty() &&
                             part_.first && part_.last && group.degree() == 1;
    const int in_graph = decode_only ? bucket(count) : 0;
    if (s.tokens() > options_.max_step_tokens)
      throw std::invalid_argument("a step of " + std::to_string(s.tokens()) + " tokens, at most " +
                                  std::to_string(options_.max_step_tokens));
    check_ids(s, ids);
    buffers_.fill(s, ids, blocks_, in_graph);
    buffers_.upload(stream_);
    if (decode_only) {
      // Split counts come in powers of two, so that lengths share graphs: rounded down, but all
      // fixed parts must be covered.
      const int wanted = splits_for(in_graph, buffers_.longest());
      int splits = 1;
      while (gpu_.deterministic ? splits < wanted : splits * 2 <= wanted)
        splits *= 2;
      decode_graph(in_graph, splits, false).launch(stream_);
      return;
    }
    for (int i = 0; i < part_.layers; ++i) {
      copy_blocks(k_pool(i), buffers_.device().copies, buffers_.copies(), block_values(), stream_);
      copy_blocks(v_pool(i), buffers_.device().copies, buffers_.copies(), block_values(), stream_);
    }
    const auto values =
        static_cast<std::size_t>(s.tokens()) * static_cast<std::size_t>(config_.hidden);
    if (part_.first && part_.rank == 0)
      embed(weights_.embedding(), buffers_.device().ids, buffers_.device().chosen, hidden_.data(),
            s.tokens(), config_.hidden, stream_);
    if (part_.first && group.degree() > 1) {
      if (part_.rank == 0)
        download_hidden(s, hidden);
      group.broadcast(std::as_writable_bytes(hidden.first(values)));
    }
    if (!part_.first || (group.degree() > 1 && part_.rank != 0)) {
      std::copy_n(hidden.data(), values, host_hidden_.data());
      HEXGEN_CUDA_CHECK(cudaMemcpyAsync(hidden_.data(), host_hidden_.data(), values * sizeof(float),
                                        cudaMemcpyHostToDevice, stream_));
    }
    launch_layers(s.tokens(), buffers_.decodes(),
                  splits_for(std::max(1, buffers_.decodes()), buffers_.longest()), buffers_.tiles(),
                  s.logit_rows(), false, group);
  }

  void check_ids(const step& s, std::span<const std::int32_t> ids) const {
    if (!part_.first || part_.rank != 0)
      return;
    if (ids.size() != static_cast<std::size_t>(s.tokens()))
      throw std::invalid_argument("the step has " + std::to_string(s.tokens()) + " tokens but " +
                                  std::to_string(ids.size()) + " ids");
    const auto rows_before =
        begun_ == ended_ ? std::size_t{0} : choosing_[(begun_ - 1) % choosing_.size()].rows;
    for (const auto id : ids)
      if (id >= config_.vocab || (id < 0 && static_cast<std::size_t>(-(id + 1)) >= rows_before))
        throw std::invalid_argument("token id " + std::to_string(id) +
                                    " lies outside the vocabulary");
  }

  void download_hidden(const step& s, std::span<float> hidden) {
    const auto values =
        static_cast<std::size_t>(s.tokens()) * static_cast<std::size_t>(config_.hidden);
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(host_hidden_.data(), hidden_.data(), values * sizeof(float),
                                      cudaMemcpyDeviceToHost, stream_));
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    std::copy_n(host_hidden_.data(), values, hidden.data());
  }

  void download_logits(int rows, std::span<float> logits, collective& group) {
    const auto mine = static_cast<std::size_t>(rows) * static_cast<std::size_t>(local_.vocab);
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(host_logits_.data(), logits_.data(), mine * sizeof(float),
                                      cudaMemcpyDeviceToHost, stream_));
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    if (group.degree() == 1) {
      std::copy_n(host_logits_.data(), mine, logits.data());
      return;
    }
    // Every rank's rows of the head, in rank order; the ranks' ranges follow each other.
    const auto ranks = static_cast<std::size_t>(group.degree());
    std::vector<std::int32_t> widths(ranks);
    std::vector<std::span<std::byte>> each;
    for (auto& w : widths)
      each.push_back(std::as_writable_bytes(std::span<std::int32_t>(&w, 1)));
    const std::int32_t width = local_.vocab;
    group.all_gather(std::as_bytes(std::span<const std::int32_t>(&width, 1)), each);
    std::vector<std::vector<float>> parts(ranks);
    std::vector<std::span<std::byte>> all;
    for (std::size_t r = 0; r < ranks; ++r) {
      parts[r].resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(widths[r]));
      all.push_back(std::as_writable_bytes(std::span<float>(parts[r])));
    }
    group.all_gather(std::as_bytes(std::span<const float>(host_logits_.data(), mine)), all);
    if (logits.empty())
      return;
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      auto* to = logits.data() + row * static_cast<std::size_t>(config_.vocab);
      for (std::size_t r = 0; r < ranks; ++r) {
        const auto w = static_cast<std::size_t>(widths[r]);
        to = std::copy_n(parts[r].data() + row * w, w, to);
      }
    }
  }

  std::shared_ptr<const model_file> model_;
  const model_config& config_;
  shard part_;
  executor_options options_;
  gpu_options gpu_;
  local_shape local_;
  cudaStream_t stream_;
  cudaStream_t side_ = nullptr; // decode attention beside prefill attention
  cudaEvent_t fork_ = nullptr, join_ = nullptr;
  device_weights weights_;
  gemm gemm_;
  step_buffers buffers_;
  device_buffer<float> hidden_, reduced_, rope_, scratch_, logits_, squares_, sum_parts_;
  device_buffer<__nv_bfloat16> normed_, delta_, qkv_, attended_, gate_up_, activated_, pool_;
  device_buffer<__nv_bfloat16> widened_; // the matrix that cuBLASLt multiplies by
  device_buffer<std::int32_t> history_, counter_;
  device_buffer<unsigned> splits_ended_, sums_ended_;
  shared_sums sums_;
  pinned_buffer<float> host_hidden_, host_logits_;
  std::array<choosing, 2> choosing_;
  std::uint64_t begun_ = 0, ended_ = 0; // steps of begin_choosing()
  device_buffer<row_choice> choices_;
  std::uint32_t blocks_ = 0;
  std::map<std::tuple<int, int, bool>, std::unique_ptr<graph>> graphs_;
};

} // namespace
} // namespace cuda

bool built_with_cuda() {
  return true;
}

std::vector<gpu_info> list_gpus(std::string& why) {
  int count = 0;
  if (const auto status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    why = status == cudaErrorInsufficientDriver
              ? "the NVIDIA driver is missing or older than this program's CUDA"
              : "no CUDA device is visible";
    return {};
  }
  std::vector<gpu_info> out;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess)
      continue;
    gpu_info g;
    g.ordinal = i;
    g.name = p.name;
    g.memory_bytes = p.totalGlobalMem;
    g.multiprocessors = p.multiProcessorCount;
    g.capability = p.major * 10 + p.minor;
    if (g.capability < 80) {
      why = g.name + " is older than compute capability 8.0, which bf16 needs";
      continue;
    }
    std::size_t free = 0;
    std::size_t total = 0;
    if (cudaSetDevice(i) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess)
      g.free_bytes = free;
    out.push_back(std::move(g));
  }
  return out;
}

executor_memory gpu_executor_memory(const model_config& config, const shard& part,
                                    const executor_options& options, const gpu_options& gpu) {
  const auto local = cuda::local_shape::of(config, part);
  constexpr std::uint64_t spare_rows = 256; // steps are padded
  const auto t = static_cast<std::uint64_t>(options.max_step_tokens) + spare_rows;
  const auto h = static_cast<std::uint64_t>(config.hidden);
  const auto d = static_cast<std::uint64_t>(config.head_dim);
  const auto q = static_cast<std::uint64_t>(local.heads) * d;
  const auto kv = static_cast<std::uint64_t>(local.kv_heads) * d;
  executor_memory m;
  m.weight_bytes = cuda::device_weights::bytes(config, part, gpu.weights);
  m.activation_bytes =
      t * (h * 8 + (q + 2 * kv) * 2 + q * 2 + 6ULL * static_cast<std::uint64_t>(local.ffn)) +
      cuda::decode_scratch_floats(gpu.max_sequences, local.heads, config.head_dim) * 4 +
      static_cast<std::uint64_t>(gpu.max_context) * d * 4 + (64ULL << 20);
  m.activation_bytes += 2ULL * cuda::widened_values(config, part, gpu.weights);
  if (part.last)
    m.activation_bytes += 4ULL *
                          (spare_rows + static_cast<std::uint64_t>(
                                            std::max(options.max_logit_rows, gpu.max_sequences))) *
                          static_cast<std::uint64_t>(local.vocab);
  m.kv_block_bytes = 2ULL * 2 * static_cast<std::uint64_t>(part.layers) * block_tokens * kv;
  return m;
}

std::unique_ptr<gpu_executor> make_gpu_executor(std::shared_ptr<const model_file> model,
                                                const shard& part, const executor_options& options,
                                                const gpu_options& gpu) {
  const auto& config = model->config();
  if (config.head_dim != 64 && config.head_dim != 128)
    throw std::runtime_error("the GPU backend serves head sizes of 64 and 128, the model has " +
                             std::to_string(config.head_dim));
  std::string why;
  const auto gpus = list_gpus(why);
  const auto found = std::find_if(gpus.begin(), gpus.end(),
                                  [&](const gpu_info& g) { return g.ordinal == gpu.ordinal; });
  if (found == gpus.end())
    throw std::runtime_error("cuda:" + std::to_string(gpu.ordinal) +
                             " cannot be used: " + (why.empty() ? "there is no such device" : why));
  const auto need = gpu_executor_memory(config, part, options, gpu);
  if (need.weight_bytes + need.activation_bytes > found->free_bytes)
    throw std::runtime_error("cuda:" + std::to_string(gpu.ordinal) + " needs " +
                             std::to_string((need.weight_bytes + need.activation_bytes) >> 20) +
                             " MiB for the shard, has " + std::to_string(found->free_bytes >> 20) +
                             " MiB free");
  return std::make_unique<cuda::executor_on_gpu>(std::move(model), part, options, gpu);
}

} // namespace hexgen::compute
