#include "compute/cuda/weights.hpp"

#include "compute/cuda/kernels.hpp"
#include "compute/int4_groups.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

namespace hexgen::compute::cuda {

local_shape local_shape::of(const model_config& config, const shard& part) {
  local_shape l;
  l.kv_heads = part.kv_head_end - part.kv_head_begin;
  l.heads = l.kv_heads * config.group();
  const auto cuts = ffn_leaf_cuts(config);
  l.ffn_begin = cuts[static_cast<std::size_t>(part.ffn_leaf_begin)];
  l.ffn = cuts[static_cast<std::size_t>(part.ffn_leaf_end)] - l.ffn_begin;
  l.vocab = part.vocab_end - part.vocab_begin;
  return l;
}

namespace {

constexpr std::size_t alignment = 256;
std::size_t aligned(std::size_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

/// Hands out pieces of one allocation, or only counts them when there is none.
class carver {
public:
  explicit carver(unsigned char* base) : base_(base) {}
  template <class T>
  T* take(std::size_t count) {
    auto* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += aligned(count * sizeof(T));
    return piece;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

private:
  unsigned char* base_;
  std::size_t used_ = 0;
};

struct layout {
  std::vector<layer_weights> layers;
  weight_matrix embedding, head;
  float* output_norm = nullptr;
  std::size_t bytes = 0;
};

layout lay_out(const model_config& config, const shard& part, gpu_weights type,
               unsigned char* base) {
  const auto local = local_shape::of(config, part);
  const auto hidden = static_cast<std::size_t>(config.hidden);
  const auto d = static_cast<std::size_t>(config.head_dim);
  const int qkv = (local.heads + 2 * local.kv_heads) * config.head_dim;
  carver take(base);
  auto matrix = [&](int rows, int columns, gpu_weights as) {
    weight_matrix m;
    m.rows = rows;
    m.columns = columns;
    m.type = as == gpu_weights::int4 && columns % int4_line != 0 ? gpu_weights::bf16 : as;
    const auto count = static_cast<std::size_t>(rows);
    m.values = take.take<unsigned char>(count * m.row_bytes());
    if (m.type != gpu_weights::bf16)
      m.scales = take.take<unsigned char>(count * m.row_scale_bytes());
    return m;
  };
  layout out;
  for (int i = 0; i < part.layers; ++i) {
    layer_weights w;
    w.qkv = matrix(qkv, config.hidden, type);
    w.output = matrix(config.hidden, local.heads * config.head_dim, type);
    w.gate_up = matrix(2 * local.ffn, config.hidden, type);
    w.down = matrix(config.hidden, local.ffn, type);
    w.attention_norm = take.take<float>(hidden);
    w.ffn_norm = take.take<float>(hidden);
    if (config.qkv_bias)
      w.qkv_bias = take.take<float>(static_cast<std::size_t>(qkv));
    if (config.qk_norm) {
      w.q_norm = take.take<float>(d);
      w.k_norm = take.take<float>(d);
    }
    out.layers.push_back(w);
  }
  if (part.first && part.rank == 0)
    out.embedding = matrix(config.vocab, config.hidden, gpu_weights::bf16);
  if (part.last) {
    out.head = matrix(local.vocab, config.hidden, type);
    out.output_norm = take.take<float>(hidden);
  }
  out.bytes = take.used();
  return out;
}

std::uint16_t to_bf16(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffU) > 0x7f800000U)
    return static_cast<std::uint16_t>((bits >> 16) | 0x40U); // a quiet NaN
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

} // namespace

class device_weights::loader {
public:
  loader(const weight_source& source, std::uint64_t total, cudaStream_t stream)
      : source_(source), total_(total), stream_(stream) {
    if (source.type == gpu_weights::fp8)
      staged_ = device_buffer<__nv_bfloat16>(piece_bytes / sizeof(__nv_bfloat16));
    if (source.file == nullptr)
      return;
    for (auto& b : buffers_)
      b = pinned_buffer<unsigned char>(piece_bytes);
    for (auto& e : events_)
      HEXGEN_CUDA_CHECK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
  }
  ~loader() {
    for (auto& e : events_)
      if (e != nullptr)
        cudaEventDestroy(e);
  }

  /// Rows [row, row + rows), columns [column, column + to.columns) of a matrix to rows first_row,
  /// first_row + every, ... of `to`.
  void matrix(const std::string& name, std::int64_t all_rows, std::int64_t all_columns,
              std::int64_t row, std::int64_t rows, std::int64_t column, const weight_matrix& to,
              std::int64_t first_row = 0, int every = 1) {
    const std::int64_t columns = to.columns;
    const std::int64_t at_once =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(piece_bytes) / (columns * 2));
    const auto* t = source_.file == nullptr ? nullptr : find(name, all_rows, all_columns);
    row_.resize(static_cast<std::size_t>(all_columns));
    for (std::int64_t done = 0; done < rows;) {
      const auto count = std::min(at_once, rows - done);
      const auto at = first_row + done * every;
      if (t == nullptr)
        random(to, at, count, every, all_columns);
      else
        copy(*t, row + done, count, column, to, at, every);
      done += count;
    }
  }

  void vector(const std::string& name, std::int64_t all, std::int64_t begin, std::int64_t count,
              float* to) {
    std::vector<float> values(static_cast<std::size_t>(all), 1.0F);
    if (source_.file != nullptr) {
      const auto* t = find(name, 1, all);
      dequantize_row(t->type, t->bytes.data(), all, values.data());
    }
    HEXGEN_CUDA_CHECK(cudaMemcpyAsync(to, values.data() + begin,
                                      static_cast<std::size_t>(count) * sizeof(float),
                                      cudaMemcpyHostToDevice, stream_));
    // `values` is not pinned: the copy has left it when the call returns or the stream is idle.
    HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream_));
  }

private:
  static constexpr std::size_t piece_bytes = 32U << 20;

  const tensor_view* find(const std::string& name, std::int64_t rows, std::int64_t columns) const {
    const auto* t = source_.file->find(name);
    if (t == nullptr)
      throw file_error("the model has no tensor " + name);
    if (t->rows != rows || t->columns != columns)
      throw file_error("tensor " + name + " is " + std::to_string(t->rows) + " x " +
                       std::to_string(t->columns) + ", expected " + std::to_string(rows) + " x " +
                       std::to_string(columns));
    return t;
  }

  void copy(const tensor_view& t, std::int64_t row, std::int64_t rows, std::int64_t column,
            const weight_matrix& to, std::int64_t first_row, int every) {
    const std::int64_t columns = to.columns;
    if (to.type == gpu_weights::int4) {
      copy_int4(t, row, rows, column, to, first_row, every);
      return;
    }
    const auto bytes = row_bytes(t.type, t.columns);
    auto* piece = reinterpret_cast<std::uint16_t*>(next());
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto* from = t.bytes.data() + static_cast<std::size_t>(row + r) * bytes;
      auto* line = piece + r * columns;
      if (t.type == tensor_type::bf16) {
        std::memcpy(line, from + column * 2, static_cast<std::size_t>(columns) * 2);
        continue;
      }
      dequantize_row(t.type, from, t.columns, row_.data());
      for (std::int64_t c = 0; c < columns; ++c)
        line[c] = to_bf16(row_[static_cast<std::size_t>(column + c)]);
    }
    const auto line_bytes = static_cast<std::size_t>(columns) * 2;
    const bool staged = to.type == gpu_weights::fp8;
    HEXGEN_CUDA_CHECK(cudaMemcpy2DAsync(
        staged ? staged_.data() : to.bf16() + first_row * columns,
        line_bytes * static_cast<std::size_t>(staged ? 1 : every), piece, line_bytes, line_bytes,
        static_cast<std::size_t>(rows), cudaMemcpyHostToDevice, stream_));
    if (staged)
      quantize_rows(staged_.data(), static_cast<int>(rows), to, static_cast<int>(first_row), every,
                    stream_);
    sent(static_cast<std::uint64_t>(rows * columns) * (staged ? 1 : 2));
  }

  void copy_int4(const tensor_view& t, std::int64_t row, std::int64_t rows, std::int64_t column,
                 const weight_matrix& to, std::int64_t first_row, int every) {
    const auto bytes = row_bytes(t.type, t.columns);
    const auto code_bytes = to.row_bytes();
    const auto scale_bytes = to.row_scale_bytes();
    auto* codes = next();
    auto* scales = codes + static_cast<std::size_t>(rows) * code_bytes;
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto at = static_cast<std::size_t>(r);
      pack_int4(t.type, t.bytes.data() + static_cast<std::size_t>(row + r) * bytes, t.columns,
                column, to.columns, codes + at * code_bytes,
                reinterpret_cast<std::uint16_t*>(scales + at * scale_bytes));
    }
    const auto send = [&](const unsigned char* from, void* matrix, std::size_t width) {
      HEXGEN_CUDA_CHECK(cudaMemcpy2DAsync(
          static_cast<unsigned char*>(matrix) + static_cast<std::size_t>(first_row) * width,
          width * static_cast<std::size_t>(every), from, width, width,
          static_cast<std::size_t>(rows), cudaMemcpyHostToDevice, stream_));
    };
    send(codes, to.values, code_bytes);
    send(scales, to.scales, scale_bytes);
    sent(static_cast<std::uint64_t>(rows) * (code_bytes + scale_bytes));
  }

  void random(const weight_matrix& to, std::int64_t first_row, std::int64_t rows, int every,
              std::int64_t fan_in) {
    const float scale = std::sqrt(3.0F / static_cast<float>(fan_in));
    const auto seed = source_.seed + ++filled_;
    if (to.type == gpu_weights::int4) {
      if (first_row == 0) // all rows at once
        fill_random_int4(to, scale, seed, stream_);
      return;
    }
    if (to.type == gpu_weights::fp8) {
      fill_random(staged_.data(), static_cast<std::size_t>(rows * to.columns), scale, seed,
                  stream_);
      quantize_rows(staged_.data(), static_cast<int>(rows), to, static_cast<int>(first_row), every,
                    stream_);
      return;
    }
    // Rows that are apart (gate and up) lie in one matrix: fill it whole, once more is harmless.
    fill_random(to.bf16() + first_row * to.columns,
                static_cast<std::size_t>(((rows - 1) * every + 1) * to.columns), scale, seed,
                stream_);
  }

  unsigned char* next() {
    current_ ^= 1;
    HEXGEN_CUDA_CHECK(cudaEventSynchronize(events_[current_]));
    return buffers_[current_].data();
  }

  void sent(std::uint64_t bytes) {
    HEXGEN_CUDA_CHECK(cudaEventRecord(events_[current_], stream_));
    done_ += bytes;
    if (source_.progress)
      source_.progress(std::min(done_, total_), total_);
  }

  const weight_source& source_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  cudaStream_t stream_;
  pinned_buffer<unsigned char> buffers_[2];
  device_buffer<__nv_bfloat16> staged_; // what is to become e4m3
  cudaEvent_t events_[2] = {nullptr, nullptr};
  int current_ = 0;
  std::uint64_t filled_ = 0;
  std::vector<float> row_;
};

device_weights::device_weights(const model_config& config, const shard& part,
                               const weight_source& source, cudaStream_t stream)
    : arena_(lay_out(config, part, source.type, nullptr).bytes) {
  const auto l = lay_out(config, part, source.type, arena_.data());
  layers_ = l.layers;
  embedding_ = l.embedding;
  head_ = l.head;
  output_norm_ = l.output_norm;

  const auto local = local_shape::of(config, part);
  const std::int64_t hidden = config.hidden;
  const std::int64_t d = config.head_dim;
  const std::int64_t q_rows = local.heads * d;
  const std::int64_t kv_rows = local.kv_heads * d;
  const std::int64_t q_begin = static_cast<std::int64_t>(part.kv_head_begin) * config.group() * d;
  const std::int64_t kv_begin = part.kv_head_begin * d;
  loader load(source, l.bytes, stream);
  for (int i = 0; i < part.layers; ++i) {
    const auto& w = layers_[static_cast<std::size_t>(i)];
    const std::string blk = "blk." + std::to_string(part.first_layer + i) + ".";
    load.matrix(blk + "attn_q.weight", config.q_width(), hidden, q_begin, q_rows, 0, w.qkv);
    load.matrix(blk + "attn_k.weight", config.kv_width(), hidden, kv_begin, kv_rows, 0, w.qkv,
                q_rows);
    load.matrix(blk + "attn_v.weight", config.kv_width(), hidden, kv_begin, kv_rows, 0, w.qkv,
                q_rows + kv_rows);
    load.matrix(blk + "attn_output.weight", hidden, config.q_width(), 0, hidden, q_begin, w.output);
    load.matrix(blk + "ffn_gate.weight", config.ffn, hidden, local.ffn_begin, local.ffn, 0,
                w.gate_up, 0, 2);
    load.matrix(blk + "ffn_up.weight", config.ffn, hidden, local.ffn_begin, local.ffn, 0, w.gate_up,
                1, 2);
    load.matrix(blk + "ffn_down.weight", hidden, config.ffn, 0, hidden, local.ffn_begin, w.down);
    load.vector(blk + "attn_norm.weight", hidden, 0, hidden, w.attention_norm);
    load.vector(blk + "ffn_norm.weight", hidden, 0, hidden, w.ffn_norm);
    if (w.qkv_bias != nullptr) {
      load.vector(blk + "attn_q.bias", config.q_width(), q_begin, q_rows, w.qkv_bias);
      load.vector(blk + "attn_k.bias", config.kv_width(), kv_begin, kv_rows, w.qkv_bias + q_rows);
      load.vector(blk + "attn_v.bias", config.kv_width(), kv_begin, kv_rows,
                  w.qkv_bias + q_rows + kv_rows);
    }
    if (w.q_norm != nullptr) {
      load.vector(blk + "attn_q_norm.weight", d, 0, d, w.q_norm);
      load.vector(blk + "attn_k_norm.weight", d, 0, d, w.k_norm);
    }
  }
  if (embedding_.values != nullptr)
    load.matrix("token_embd.weight", config.vocab, hidden, 0, config.vocab, 0, embedding_);
  if (head_.values != nullptr) {
    load.matrix(config.tied_head ? "token_embd.weight" : "output.weight", config.vocab, hidden,
                part.vocab_begin, local.vocab, 0, head_);
    load.vector("output_norm.weight", hidden, 0, hidden, output_norm_);
  }
  HEXGEN_CUDA_CHECK(cudaStreamSynchronize(stream));
}

std::uint64_t device_weights::bytes(const model_config& config, const shard& part,
                                    gpu_weights type) {
  return lay_out(config, part, type, nullptr).bytes;
}

} // namespace hexgen::compute::cuda
