// JSON from a file that nobody vouches for. Included by .cpp files only.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace hexgen::compute {

/// An object of at most `max_depth` levels. Throws file_error naming `file`.
[[nodiscard]] nlohmann::json parse_json_object(std::string_view text, const std::string& file,
                                               int max_depth = 16);

/// Typed members of one object; every error names the file and the member.
class json_fields {
public:
  /// Both outlive the reader. `object` is an object; `path` is put before member names.
  json_fields(const nlohmann::json& object, const std::string& file, std::string path = {})
      : object_(object), file_(file), path_(std::move(path)) {}

  /// nullptr when absent or null.
  [[nodiscard]] const nlohmann::json* find(const char* name) const;
  [[nodiscard]] std::optional<std::int64_t> integer(const char* name, std::int64_t low,
                                                    std::int64_t high) const;
  [[nodiscard]] std::optional<double> number(const char* name) const; // finite
  [[nodiscard]] std::optional<bool> boolean(const char* name) const;
  [[nodiscard]] std::optional<std::string> string(const char* name) const;
  [[noreturn]] void fail(const char* name, const std::string& problem) const;

private:
  const nlohmann::json& object_;
  const std::string& file_;
  std::string path_;
};

} // namespace hexgen::compute
