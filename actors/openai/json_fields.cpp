#include "actors/openai/json_fields.hpp"

#include "actors/openai/api_error.hpp"
#include "actors/openai/bounds.hpp"

#include <cmath>
#include <sstream>

namespace hexgen::actors {

using nlohmann::json;

namespace {

std::string text_of(double value) {
  std::ostringstream out;
  out.precision(10);
  out << value;
  return out.str();
}

// What json.dumps of Python writes for floats that are not numbers.
bool is_not_a_number(std::string_view at) {
  for (const std::string_view word : {"NaN", "Infinity", "-Infinity"})
    if (at.substr(0, word.size()) == word)
      return true;
  return false;
}

} // namespace

json parse_body(std::string_view body) {
  std::string last_key;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > bounds::json_depth)
      throw api_error(400, "invalid_request_error",
                      "the JSON is nested deeper than " + std::to_string(bounds::json_depth),
                      last_key);
    if (event == json::parse_event_t::key && depth == 1)
      last_key = parsed.get<std::string>();
    return true;
  };
  json value;
  try {
    value = json::parse(body, watch);
  } catch (const json::parse_error& e) {
    // `byte` counts from 1 and is that of the last character read.
    for (std::size_t back = 1; back <= 2 && back <= e.byte; ++back)
      if (is_not_a_number(body.substr(std::min(body.size(), e.byte - back))))
        throw bad_parameter(last_key, last_key + " must be a finite number");
    throw api_error(400, "invalid_request_error",
                    "the body is not valid JSON (at byte " + std::to_string(e.byte) + ")", {},
                    "invalid_json");
  } catch (const json::out_of_range&) {
    throw bad_parameter(last_key, last_key + " is a number out of range");
  }
  if (!value.is_object())
    throw api_error(400, "invalid_request_error", "the body must be a JSON object", {},
                    "invalid_json");
  return value;
}

const json* field(const json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::optional<double> number_field(const json& object, const char* name) {
  const auto* value = field(object, name);
  if (value == nullptr)
    return std::nullopt;
  const auto& bound = bound_of(name);
  if (!value->is_number())
    throw bad_parameter(name, std::string(name) + " must be " +
                                  (bound.integer ? "an integer" : "a number"));
  const double number = value->get<double>();
  if (bound.integer && std::floor(number) != number)
    throw bad_parameter(name, std::string(name) + " must be an integer");
  if (!(number >= bound.lowest && number <= bound.highest))
    throw bad_parameter(name, std::string(name) + " must be between " + text_of(bound.lowest) +
                                  " and " + text_of(bound.highest) + ", not " + text_of(number));
  return number;
}

std::optional<int> integer_field(const json& object, const char* name) {
  const auto number = number_field(object, name);
  return number ? std::optional(static_cast<int>(*number)) : std::nullopt;
}

std::optional<bool> bool_field(const json& object, const char* name) {
  const auto* value = field(object, name);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_boolean())
    throw bad_parameter(name, std::string(name) + " must be true or false");
  return value->get<bool>();
}

std::optional<std::string> string_field(const json& object, const char* name) {
  const auto* value = field(object, name);
  if (value == nullptr)
    return std::nullopt;
  if (!value->is_string())
    throw bad_parameter(name, std::string(name) + " must be a string");
  return value->get<std::string>();
}

int token_value(const json& value, int vocab, const char* name) {
  const bool whole =
      value.is_number_unsigned() || (value.is_number_integer() && value.get<std::int64_t>() >= 0);
  if (!whole || value.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocab))
    throw bad_parameter(name, std::string(name) + ": a token id must be an integer between 0 and " +
                                  std::to_string(vocab - 1));
  return value.get<int>();
}

} // namespace hexgen::actors
