// The GGUF container (versions 2 and 3): typed metadata and the tensor table, checked on opening.
#pragma once

#include "compute/model_file.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hexgen::compute {

/// The type numbers of the format.
enum class gguf_type : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

[[nodiscard]] const char* to_string(gguf_type type);
/// Bytes of one value; 0 for strings and arrays, which have no fixed size.
[[nodiscard]] std::size_t bytes_of(gguf_type type);

/// One metadata value. Every accessor throws file_error, naming file and key, when the value is of
/// another type. Views point into the file's bytes and live as long as the gguf_file.
class gguf_value {
public:
  [[nodiscard]] std::string_view key() const { return key_; }
  [[nodiscard]] gguf_type type() const { return type_; }
  /// Of an array; the value's own type otherwise.
  [[nodiscard]] gguf_type element_type() const { return element_type_; }
  /// Elements of an array; 1 otherwise.
  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] bool is_array() const { return type_ == gguf_type::array; }

  [[nodiscard]] std::string_view as_string() const;
  /// Any integer type. Also throws when the value lies outside [low, high].
  [[nodiscard]] std::int64_t
  as_integer(std::int64_t low = std::numeric_limits<std::int64_t>::min(),
             std::int64_t high = std::numeric_limits<std::int64_t>::max()) const;
  /// Any floating or integer type; finite.
  [[nodiscard]] double as_number() const;
  [[nodiscard]] bool as_boolean() const;

  [[nodiscard]] std::vector<std::string_view> as_strings() const;
  /// An array of any integer type; every element must fit an int32.
  [[nodiscard]] std::vector<std::int32_t> as_integers() const;
  /// An array of any floating or integer type (NaN and infinity are passed on).
  [[nodiscard]] std::vector<float> as_floats() const;

private:
  friend class gguf_parser;
  [[noreturn]] void mismatch(const char* wanted) const;

  const std::string* file_ = nullptr; // the file's name, for messages
  std::string_view key_;
  gguf_type type_ = gguf_type::u8;
  gguf_type element_type_ = gguf_type::u8;
  std::uint64_t count_ = 1;
  std::span<const std::byte> bytes_; // of the value or the elements, as stored
};

/// An opened GGUF file. Immutable and thread-safe.
class gguf_file {
public:
  /// Maps the file and checks all of it but the weights' values: counts, strings, dimensions,
  /// alignment, bounds and overlap. Throws file_error.
  [[nodiscard]] static std::shared_ptr<const gguf_file> open(const std::filesystem::path& path);
  /// The same over bytes in memory that `owner` keeps alive; `name` is used in messages.
  [[nodiscard]] static std::shared_ptr<const gguf_file>
  parse(std::string name, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::uint32_t version() const { return version_; }
  /// All metadata, in the file's order.
  [[nodiscard]] std::span<const gguf_value> values() const { return values_; }
  /// nullptr when the file has no such key.
  [[nodiscard]] const gguf_value* find(std::string_view key) const;
  /// Throws file_error when the file has no such key.
  [[nodiscard]] const gguf_value& at(std::string_view key) const;

  [[nodiscard]] std::span<const tensor_view> tensors() const { return tensors_; }
  /// The bytes of metadata and tensor table, before the padding to the weights.
  [[nodiscard]] std::span<const std::byte> header() const { return header_; }

private:
  friend class gguf_parser;
  gguf_file() = default;

  std::string name_;
  std::shared_ptr<const void> owner_;
  std::uint32_t version_ = 0;
  std::span<const std::byte> header_;
  std::vector<gguf_value> values_;
  std::unordered_map<std::string_view, std::size_t> index_;
  std::vector<tensor_view> tensors_;
};

} // namespace hexgen::compute
