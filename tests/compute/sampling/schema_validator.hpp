// A small validator of JSON schemas, written apart from the grammar compiler it judges.
#pragma once

#include <nlohmann/json.hpp>

#include <regex>
#include <string>

namespace hexgen::compute {

using schema_json = nlohmann::ordered_json;

/// Characters (not bytes) of well-formed UTF-8.
inline std::size_t characters(const std::string& text) {
  std::size_t n = 0;
  for (const char c : text)
    n += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
  return n;
}

inline bool has_type(const schema_json& value, const std::string& type) {
  return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
         (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
         (type == "integer" && value.is_number_integer()) ||
         (type == "boolean" && value.is_boolean()) || (type == "null" && value.is_null());
}

inline bool valid(const schema_json& root, const schema_json& schema, const schema_json& value) {
  const auto check = [&](const schema_json& s, const schema_json& v) { return valid(root, s, v); };
  if (schema.is_boolean())
    return schema.get<bool>();
  for (const auto& [key, rule] : schema.items()) {
    bool good = true;
    if (key == "$ref") {
      good = check(root.at(schema_json::json_pointer(rule.get<std::string>().substr(1))), value);
    } else if (key == "type") {
      good = false;
      for (const auto& t : rule.is_array() ? rule : schema_json::array({rule}))
        good = good || has_type(value, t.get<std::string>());
    } else if (key == "anyOf" || key == "oneOf") {
      good = false;
      for (const auto& s : rule)
        good = good || check(s, value);
    } else if (key == "allOf") {
      for (const auto& s : rule)
        good = good && check(s, value);
    } else if (key == "enum") {
      good = false;
      for (const auto& v : rule)
        good = good || v == value;
    } else if (key == "const") {
      good = rule == value;
    } else if (value.is_object()) {
      if (key == "required")
        for (const auto& name : rule)
          good = good && value.contains(name.get<std::string>());
      if (key == "properties")
        for (const auto& [name, s] : rule.items())
          good = good && (!value.contains(name) || check(s, value.at(name)));
      if (key == "additionalProperties")
        for (const auto& [name, v] : value.items())
          good = good && ((schema.contains("properties") && schema["properties"].contains(name)) ||
                          check(rule, v));
    } else if (value.is_array()) {
      const std::size_t prefixed =
          schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
      if (key == "items")
        for (std::size_t i = prefixed; i < value.size(); ++i)
          good = good && check(rule, value[i]);
      if (key == "prefixItems")
        for (std::size_t i = 0; i < std::min(prefixed, value.size()); ++i)
          good = good && check(rule[i], value[i]);
      if (key == "minItems")
        good = value.size() >= rule.get<std::size_t>();
      if (key == "maxItems")
        good = value.size() <= rule.get<std::size_t>();
    } else if (value.is_string()) {
      const auto text = value.get<std::string>();
      if (key == "minLength")
        good = characters(text) >= rule.get<std::size_t>();
      if (key == "maxLength")
        good = characters(text) <= rule.get<std::size_t>();
      if (key == "pattern")
        good = std::regex_search(text, std::regex(rule.get<std::string>()));
    } else if (value.is_number()) {
      const double v = value.get<double>();
      good = (key != "minimum" || v >= rule.get<double>()) &&
             (key != "maximum" || v <= rule.get<double>()) &&
             (key != "exclusiveMinimum" || v > rule.get<double>()) &&
             (key != "exclusiveMaximum" || v < rule.get<double>());
    }
    if (!good)
      return false;
  }
  return true;
}

} // namespace hexgen::compute
