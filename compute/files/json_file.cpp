#include "compute/files/json_file.hpp"

#include "compute/model_file.hpp"

#include <cmath>

namespace hexgen::compute {

using nlohmann::json;

json parse_json_object(std::string_view text, const std::string& file, int max_depth) {
  const auto watch = [&](int depth, json::parse_event_t, json&) {
    if (depth > max_depth)
      throw file_error(file + ": nested deeper than " + std::to_string(max_depth) + " levels");
    return true;
  };
  json value;
  try {
    value = json::parse(text, watch);
  } catch (const json::exception& error) {
    throw file_error(file + ": not valid JSON: " + error.what());
  }
  if (!value.is_object())
    throw file_error(file + ": not a JSON object");
  return value;
}

void json_fields::fail(const char* name, const std::string& problem) const {
  throw file_error(file_ + ": " + path_ + name + ": " + problem);
}

const json* json_fields::find(const char* name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<std::int64_t> json_fields::integer(const char* name, std::int64_t low,
                                                 std::int64_t high) const {
  const auto* value = find(name);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_number_integer())
    fail(name, "want an integer");
  const bool fits =
      !value->is_number_unsigned() ||
      value->get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  const auto number = fits ? value->get<std::int64_t>() : 0;
  if (!fits || number < low || number > high)
    fail(name, "lies outside [" + std::to_string(low) + ", " + std::to_string(high) + "]");
  return number;
}

std::optional<double> json_fields::number(const char* name) const {
  const auto* value = find(name);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_number() || !std::isfinite(value->get<double>()))
    fail(name, "want a finite number");
  return value->get<double>();
}

std::optional<bool> json_fields::boolean(const char* name) const {
  const auto* value = find(name);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_boolean())
    fail(name, "want true or false");
  return value->get<bool>();
}

std::optional<std::string> json_fields::string(const char* name) const {
  const auto* value = find(name);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_string())
    fail(name, "want a string");
  return value->get<std::string>();
}

} // namespace hexgen::compute
