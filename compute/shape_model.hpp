// A model of which only the sizes are known: its weights are drawn at random where it is loaded.
#pragma once

#include "compute/model_file.hpp"
#include "compute/tokenizer.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace hexgen::compute {

/// Tensors have names, shapes and the type bf16, but no bytes.
class shape_model final : public model_file {
public:
  explicit shape_model(model_config config);
  [[nodiscard]] const model_config& config() const override { return config_; }
  [[nodiscard]] const tensor_view* find(std::string_view name) const override;
  [[nodiscard]] std::span<const tensor_view> tensors() const override { return views_; }
  [[nodiscard]] std::uint64_t total_bytes() const override;
  /// The same sizes with values, in host memory.
  [[nodiscard]] std::shared_ptr<const model_file> filled() const;

private:
  model_config config_;
  std::vector<std::string> names_;
  std::vector<tensor_view> views_;
};

/// From a planning file such as config/models/llama-2-7b.yaml; heads of `hidden / heads` values, a
/// context of 4,096 tokens. Throws file_error.
[[nodiscard]] std::shared_ptr<const shape_model>
open_shape_model(const std::filesystem::path& file);

/// A tokenizer for it: every byte of a text is a token, every token prints as one letter, and no
/// token ends a sequence. Throws file_error.
[[nodiscard]] std::shared_ptr<const tokenizer>
open_shape_tokenizer(const std::filesystem::path& file);

} // namespace hexgen::compute
