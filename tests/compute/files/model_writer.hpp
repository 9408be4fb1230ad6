// Writes models to disk, so that readers can be tested by round trip and by damage.
#pragma once

#include "compute/model_file.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hexgen::tests {

/// A GGUF file, built piece by piece; `bytes()` puts it together.
class gguf_writer {
public:
  explicit gguf_writer(std::uint32_t version = 3) : version_(version) {}

  void add_u32(std::string_view key, std::uint32_t value);
  void add_u64(std::string_view key, std::uint64_t value);
  void add_i32(std::string_view key, std::int32_t value);
  void add_f32(std::string_view key, float value);
  void add_bool(std::string_view key, bool value);
  void add_string(std::string_view key, std::string_view value);
  void add_strings(std::string_view key, const std::vector<std::string>& values);
  void add_i32s(std::string_view key, const std::vector<std::int32_t>& values);
  void add_f32s(std::string_view key, const std::vector<float>& values);
  void add_tensor(const compute::tensor_view& tensor);
  /// Written and used for the padding.
  void set_alignment(std::uint32_t alignment);

  [[nodiscard]] std::vector<std::byte> bytes() const;

private:
  struct pending {
    std::string name;
    compute::tensor_type type;
    std::int64_t rows, columns;
    std::vector<std::byte> data;
  };
  void begin(std::string_view key, std::uint32_t type);

  std::uint32_t version_;
  std::uint32_t alignment_ = 32;
  std::uint64_t values_ = 0;
  std::vector<std::byte> metadata_;
  std::vector<pending> tensors_;
};

/// The whole model with its configuration, as converters write it.
[[nodiscard]] std::vector<std::byte> gguf_bytes(const compute::model_file& model,
                                                std::uint32_t version = 3);

/// A model of float tensors as safetensors bytes, under Hugging Face's names.
[[nodiscard]] std::vector<std::byte>
safetensors_bytes(const std::vector<compute::tensor_view>& tensors);

/// config.json for a configuration.
[[nodiscard]] std::string hf_config_json(const compute::model_config& config);

/// Writes config.json and the weights (float tensors only) in `shards` files.
void write_hf_folder(const compute::model_file& model, const std::filesystem::path& folder,
                     int shards = 1);

void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file(const std::filesystem::path& path, std::string_view text);

/// A fresh folder that goes with the object.
class temporary_folder {
public:
  temporary_folder();
  ~temporary_folder();
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

private:
  std::filesystem::path path_;
};

} // namespace hexgen::tests
