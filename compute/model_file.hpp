// A model on disk, read-only: GGUF file or Hugging Face folder behind one face.
#pragma once

#include "compute/model_config.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::compute {

enum class tensor_type : std::uint8_t {
  f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl, q4_k, q5_k, q6_k
};

/// A weight matrix as the file stores it. `rows` x `columns`, row-major; every row is a run of
/// whole blocks of `type` along the columns (the k of y = W x). Vectors have rows == 1.
/// `bytes` points into the mapping of the model_file that gave it and lives as long as that.
struct tensor_view {
  std::string_view name;
  tensor_type type = tensor_type::f32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::span<const std::byte> bytes;
};

/// What is wrong with a file: the message names the file and the field.
class file_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An opened model. Thread-safe after opening (all reads are of immutable state).
/// Tensor names are GGUF's, for Hugging Face folders too: token_embd.weight, output_norm.weight,
/// output.weight (absent when tied), and blk.N.{attn_norm,attn_q,attn_k,attn_v,attn_output,
/// attn_q_norm,attn_k_norm,ffn_norm,ffn_gate,ffn_up,ffn_down}.weight, blk.N.attn_{q,k,v}.bias.
class model_file {
 public:
  virtual ~model_file() = default;
  [[nodiscard]] virtual const model_config& config() const = 0;
  /// nullptr when the model has no tensor of that name.
  [[nodiscard]] virtual const tensor_view* find(std::string_view name) const = 0;
  [[nodiscard]] virtual std::span<const tensor_view> tensors() const = 0;
  [[nodiscard]] virtual std::uint64_t total_bytes() const = 0;
};

/// Opens a `.gguf` file or a folder with config.json + *.safetensors. Checks every offset, shape
/// and type against the file's size before it is used. Throws file_error.
[[nodiscard]] std::shared_ptr<const model_file> open_model(const std::filesystem::path& path);

/// Bytes of one row of `columns` values; columns must be a multiple of the block size.
[[nodiscard]] std::size_t row_bytes(tensor_type type, std::int64_t columns);
/// Bytes per block: those of one value for floats.
[[nodiscard]] int block_bytes(tensor_type type);
/// Values per block: 1 (floats), 32, or 256 (K-quants).
[[nodiscard]] int block_values(tensor_type type);
[[nodiscard]] const char* to_string(tensor_type type);

/// One row to float32: bit-equal to the PyPI `gguf` package's dequantize.
void dequantize_row(tensor_type type, const std::byte* row, std::int64_t columns, float* out);

} // namespace hexgen::compute
