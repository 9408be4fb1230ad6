// Reading a request's JSON: every field is checked for type and bounds, and named when it is wrong.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace hexgen::actors {

/// Throws api_error 400: not JSON, not an object, nested deeper than bounds::json_depth. A number
/// that JSON cannot hold (NaN, 1e999) names the field that it is in.
[[nodiscard]] nlohmann::json parse_body(std::string_view body);

/// A field, or nullptr when absent or null.
[[nodiscard]] const nlohmann::json* field(const nlohmann::json& object, const char* name);

// Each throws api_error 400 naming the field; nullopt when absent or null.
[[nodiscard]] std::optional<double> number_field(const nlohmann::json& object, const char* name);
[[nodiscard]] std::optional<int> integer_field(const nlohmann::json& object, const char* name);
[[nodiscard]] std::optional<bool> bool_field(const nlohmann::json& object, const char* name);
[[nodiscard]] std::optional<std::string> string_field(const nlohmann::json& object,
                                                      const char* name);
/// A token id below `vocab`; `name` is for the message.
[[nodiscard]] int token_value(const nlohmann::json& value, int vocab, const char* name);

} // namespace hexgen::actors
