// The safetensors container: a JSON header of names, types and offsets, then the data.
#pragma once

#include "compute/model_file.hpp"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::compute {

/// An opened safetensors file. Immutable and thread-safe.
class safetensors_file {
public:
  /// Maps the file and checks header, types, shapes and offsets: the tensors must fill the data
  /// without holes or overlap, and be vectors or matrices of F32, F16 or BF16. Throws file_error.
  [[nodiscard]] static std::shared_ptr<const safetensors_file>
  open(const std::filesystem::path& path);
  /// The same over bytes in memory that `owner` keeps alive; `name` is used in messages.
  [[nodiscard]] static std::shared_ptr<const safetensors_file>
  parse(std::string name, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  [[nodiscard]] const std::string& name() const { return name_; }
  /// Under the names in the file, sorted. `bytes` may lie off the element's boundary.
  [[nodiscard]] std::span<const tensor_view> tensors() const { return tensors_; }
  /// nullptr when the file has no such tensor.
  [[nodiscard]] const tensor_view* find(std::string_view name) const;

private:
  safetensors_file() = default;
  void read(std::span<const std::byte> bytes);

  std::string name_;
  std::shared_ptr<const void> owner_;
  std::vector<std::string> names_;
  std::vector<tensor_view> tensors_;
};

} // namespace hexgen::compute
