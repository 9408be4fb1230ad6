// A YAML mapping read key by key, where every mistake names file, line and key. For config/*.cpp
// only: it brings in yaml-cpp.
#pragma once

#include "config/error.hpp"

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

namespace hexgen::config {

/// The file's text, at most 4 MiB. Throws config_error.
[[nodiscard]] std::string read_config_text(const std::string& path);

class yaml_reader {
public:
  /// Parses `text`; `file` is only for messages. The top must be a mapping.
  [[nodiscard]] static yaml_reader parse(const std::string& file, const std::string& text);

  /// Throw config_error when the key is missing or of another type or out of range.
  [[nodiscard]] double number(const std::string& key, double low, double high);
  [[nodiscard]] double number(const std::string& key, double low, double high, double fallback);
  [[nodiscard]] std::int64_t integer(const std::string& key, std::int64_t low, std::int64_t high);
  [[nodiscard]] std::int64_t integer(const std::string& key, std::int64_t low, std::int64_t high,
                                     std::int64_t fallback);
  [[nodiscard]] std::string text(const std::string& key);
  [[nodiscard]] std::string text(const std::string& key, const std::string& fallback);
  [[nodiscard]] bool flag(const std::string& key, bool fallback);
  [[nodiscard]] std::vector<double> numbers(const std::string& key, double low, double high);
  [[nodiscard]] std::vector<std::string> texts(const std::string& key);
  [[nodiscard]] yaml_reader section(const std::string& key);
  /// A list of mappings; empty when the key is absent and `required` is false.
  [[nodiscard]] std::vector<yaml_reader> sections(const std::string& key, bool required);
  /// A list of lists of numbers, all of `width`.
  [[nodiscard]] std::vector<std::vector<double>> rows(const std::string& key, std::size_t width);
  [[nodiscard]] bool has(const std::string& key) const;
  /// Keys in file order.
  [[nodiscard]] std::vector<std::string> keys() const;
  [[nodiscard]] bool is_mapping(const std::string& key) const;
  /// Refuses keys that nobody asked for: a typo must not pass as a default.
  void refuse_other_keys() const;
  /// Where the key's value begins, counted from one; the mapping's own line when it is absent.
  [[nodiscard]] int line(const std::string& key) const;
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;

private:
  yaml_reader(std::string file, std::string path, YAML::Node node);
  [[nodiscard]] YAML::Node need(const std::string& key);
  [[nodiscard]] double to_number(const YAML::Node& node, const std::string& key, double low,
                                 double high) const;
  [[noreturn]] void fail_at(const YAML::Node& node, const std::string& key,
                            const std::string& message) const;

  std::string file_, path_;
  YAML::Node node_;
  std::set<std::string> asked_;
};

} // namespace hexgen::config
