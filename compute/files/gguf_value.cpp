// Typed access to one metadata value.
#include "compute/files/gguf.hpp"
#include "compute/files/stored_model.hpp"

#include <cmath>
#include <cstring>
#include <type_traits>

namespace hexgen::compute {

namespace {

bool is_integer(gguf_type type) {
  return type != gguf_type::f32 && type != gguf_type::f64 && type != gguf_type::boolean &&
         type != gguf_type::string && type != gguf_type::array;
}

bool is_number(gguf_type type) {
  return is_integer(type) || type == gguf_type::f32 || type == gguf_type::f64;
}

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Calls `use` with the number at `from` in its own type.
template <class Use>
auto with_number(gguf_type type, const std::byte* from, Use use) {
  switch (type) {
  case gguf_type::u8:
    return use(load<std::uint8_t>(from));
  case gguf_type::i8:
    return use(load<std::int8_t>(from));
  case gguf_type::u16:
    return use(load<std::uint16_t>(from));
  case gguf_type::i16:
    return use(load<std::int16_t>(from));
  case gguf_type::u32:
    return use(load<std::uint32_t>(from));
  case gguf_type::i32:
    return use(load<std::int32_t>(from));
  case gguf_type::u64:
    return use(load<std::uint64_t>(from));
  case gguf_type::i64:
    return use(load<std::int64_t>(from));
  case gguf_type::f64:
    return use(load<double>(from));
  default:
    return use(load<float>(from));
  }
}

/// An integer that may not fit an int64 (a large u64): then empty.
std::optional<std::int64_t> integer_at(gguf_type type, const std::byte* from) {
  return with_number(type, from, [](auto value) -> std::optional<std::int64_t> {
    if constexpr (std::is_same_v<decltype(value), std::uint64_t>)
      if (value > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
        return std::nullopt;
    if constexpr (std::is_floating_point_v<decltype(value)>)
      return std::nullopt;
    else
      return static_cast<std::int64_t>(value);
  });
}

} // namespace

const char* to_string(gguf_type type) {
  static constexpr const char* names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                          "bool", "string", "array", "u64", "i64", "f64"};
  return names[static_cast<std::uint32_t>(type)];
}

std::size_t bytes_of(gguf_type type) {
  switch (type) {
  case gguf_type::u8:
  case gguf_type::i8:
  case gguf_type::boolean:
    return 1;
  case gguf_type::u16:
  case gguf_type::i16:
    return 2;
  case gguf_type::u32:
  case gguf_type::i32:
  case gguf_type::f32:
    return 4;
  case gguf_type::u64:
  case gguf_type::i64:
  case gguf_type::f64:
    return 8;
  case gguf_type::string:
  case gguf_type::array:
    break;
  }
  return 0; // of no fixed size
}

void gguf_value::mismatch(const char* wanted) const {
  throw file_error(*file_ + ": " + in_quotes(key_) + ": want " + wanted + ", is " +
                   (is_array() ? std::string("an array of ") + compute::to_string(element_type_)
                               : std::string(compute::to_string(type_))));
}

std::string_view gguf_value::as_string() const {
  if (type_ != gguf_type::string)
    mismatch("a string");
  return {reinterpret_cast<const char*>(bytes_.data()) + 8, bytes_.size() - 8};
}

std::int64_t gguf_value::as_integer(std::int64_t low, std::int64_t high) const {
  if (!is_integer(type_))
    mismatch("an integer");
  const auto value = integer_at(type_, bytes_.data());
  if (!value || *value < low || *value > high)
    throw file_error(*file_ + ": " + in_quotes(key_) + ": " +
                     (value ? std::to_string(*value) : std::string("the value")) +
                     " lies outside [" + std::to_string(low) + ", " + std::to_string(high) + "]");
  return *value;
}

double gguf_value::as_number() const {
  if (!is_number(type_))
    mismatch("a number");
  const double value =
      with_number(type_, bytes_.data(), [](auto v) { return static_cast<double>(v); });
  if (!std::isfinite(value))
    throw file_error(*file_ + ": " + in_quotes(key_) + ": not a finite number");
  return value;
}

bool gguf_value::as_boolean() const {
  if (type_ != gguf_type::boolean)
    mismatch("a bool");
  return bytes_[0] != std::byte{0};
}

std::vector<std::string_view> gguf_value::as_strings() const {
  if (!is_array() || element_type_ != gguf_type::string)
    mismatch("an array of strings");
  std::vector<std::string_view> out;
  out.reserve(count_); // count_ was checked against the bytes that hold it
  std::size_t at = 0;
  for (std::uint64_t i = 0; i < count_; ++i) {
    const auto length = load<std::uint64_t>(bytes_.data() + at);
    out.emplace_back(reinterpret_cast<const char*>(bytes_.data()) + at + 8, length);
    at += 8 + length;
  }
  return out;
}

std::vector<std::int32_t> gguf_value::as_integers() const {
  if (!is_array() || !is_integer(element_type_))
    mismatch("an array of integers");
  std::vector<std::int32_t> out;
  out.reserve(count_);
  const auto step = bytes_of(element_type_);
  for (std::uint64_t i = 0; i < count_; ++i) {
    const auto value = integer_at(element_type_, bytes_.data() + i * step);
    if (!value || *value < std::numeric_limits<std::int32_t>::min() ||
        *value > std::numeric_limits<std::int32_t>::max())
      throw file_error(*file_ + ": " + in_quotes(key_) + ": element " + std::to_string(i) +
                       " does not fit 32 bits");
    out.push_back(static_cast<std::int32_t>(*value));
  }
  return out;
}

std::vector<float> gguf_value::as_floats() const {
  if (!is_array() || !is_number(element_type_))
    mismatch("an array of numbers");
  std::vector<float> out;
  out.reserve(count_);
  const auto step = bytes_of(element_type_);
  for (std::uint64_t i = 0; i < count_; ++i)
    out.push_back(with_number(element_type_, bytes_.data() + i * step,
                              [](auto value) { return static_cast<float>(value); }));
  return out;
}

} // namespace hexgen::compute
