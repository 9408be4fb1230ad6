#include "config/yaml_reader.hpp"

#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

namespace hexgen::config {

namespace {

constexpr std::size_t most_bytes = 4u << 20;
constexpr std::size_t longest_scalar = 4096;

std::string short_number(double value) {
  std::ostringstream text;
  text.precision(12);
  text << value;
  return text.str();
}

} // namespace

std::string read_config_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    throw config_error(path, 0, "", "cannot be read");
  std::string text;
  std::vector<char> piece(1u << 16);
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0) {
    text.append(piece.data(), static_cast<std::size_t>(in.gcount()));
    if (text.size() > most_bytes)
      throw config_error(path, 0, "", "is larger than 4 MiB");
  }
  if (in.bad())
    throw config_error(path, 0, "", "cannot be read to its end");
  return text;
}

yaml_reader::yaml_reader(std::string file, std::string path, YAML::Node node)
    : file_(std::move(file)), path_(std::move(path)), node_(std::move(node)) {}

yaml_reader yaml_reader::parse(const std::string& file, const std::string& text) {
  if (text.size() > most_bytes)
    throw config_error(file, 0, "", "is larger than 4 MiB");
  try {
    auto node = YAML::Load(text);
    if (!node.IsMap())
      throw config_error(file, 1, "", "must be a mapping of keys to values");
    return {file, "", node};
  } catch (const YAML::Exception& error) {
    throw config_error(file, error.mark.line + 1, "", "not valid YAML: " + error.msg);
  }
}

void yaml_reader::fail_at(const YAML::Node& node, const std::string& key,
                          const std::string& message) const {
  const auto mark = node.IsDefined() ? node.Mark() : node_.Mark();
  throw config_error(file_, mark.line + 1, path_.empty() ? key : path_ + "." + key, message);
}

int yaml_reader::line(const std::string& key) const {
  const YAML::Node found = node_[key];
  return (found ? found : node_).Mark().line + 1;
}

void yaml_reader::fail(const std::string& key, const std::string& message) const {
  const YAML::Node found = node_[key];
  fail_at(found ? found : node_, key, message);
}

YAML::Node yaml_reader::need(const std::string& key) {
  asked_.insert(key);
  const YAML::Node& fixed = node_;
  auto found = fixed[key];
  if (!found || found.IsNull())
    fail_at(node_, key, "is missing");
  return found;
}

bool yaml_reader::has(const std::string& key) const {
  const YAML::Node& fixed = node_;
  const auto found = fixed[key];
  return found && !found.IsNull();
}

bool yaml_reader::is_mapping(const std::string& key) const {
  return has(key) && node_[key].IsMap();
}

double yaml_reader::to_number(const YAML::Node& node, const std::string& key, double low,
                              double high) const {
  if (!node.IsScalar())
    fail_at(node, key, "must be a number");
  const auto& text = node.Scalar();
  double value = 0;
  const auto* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stopped != end || !std::isfinite(value))
    fail_at(node, key, "must be a number, not '" + text.substr(0, 40) + "'");
  if (value < low || value > high)
    fail_at(node, key,
            short_number(value) + " is not between " + short_number(low) + " and " +
                short_number(high));
  return value;
}

double yaml_reader::number(const std::string& key, double low, double high) {
  return to_number(need(key), key, low, high);
}

double yaml_reader::number(const std::string& key, double low, double high, double fallback) {
  asked_.insert(key);
  return has(key) ? number(key, low, high) : fallback;
}

std::int64_t yaml_reader::integer(const std::string& key, std::int64_t low, std::int64_t high) {
  const auto node = need(key);
  const double value = to_number(node, key, static_cast<double>(low), static_cast<double>(high));
  if (value != std::floor(value))
    fail_at(node, key, "must be a whole number");
  return static_cast<std::int64_t>(value);
}

std::int64_t yaml_reader::integer(const std::string& key, std::int64_t low, std::int64_t high,
                                  std::int64_t fallback) {
  asked_.insert(key);
  return has(key) ? integer(key, low, high) : fallback;
}

std::string yaml_reader::text(const std::string& key) {
  const auto node = need(key);
  if (!node.IsScalar() || node.Scalar().empty())
    fail_at(node, key, "must be a text");
  if (node.Scalar().size() > longest_scalar)
    fail_at(node, key, "is too long");
  return node.Scalar();
}

std::string yaml_reader::text(const std::string& key, const std::string& fallback) {
  asked_.insert(key);
  return has(key) ? text(key) : fallback;
}

bool yaml_reader::flag(const std::string& key, bool fallback) {
  asked_.insert(key);
  if (!has(key))
    return fallback;
  const auto value = text(key);
  if (value != "true" && value != "false")
    fail(key, "must be true or false");
  return value == "true";
}

std::vector<double> yaml_reader::numbers(const std::string& key, double low, double high) {
  const auto node = need(key);
  if (!node.IsSequence() || node.size() == 0)
    fail_at(node, key, "must be a list of numbers");
  std::vector<double> found;
  for (const auto& item : node)
    found.push_back(to_number(item, key, low, high));
  return found;
}

std::vector<std::string> yaml_reader::texts(const std::string& key) {
  const auto node = need(key);
  if (!node.IsSequence())
    fail_at(node, key, "must be a list of texts");
  std::vector<std::string> found;
  for (const auto& item : node) {
    if (!item.IsScalar() || item.Scalar().size() > longest_scalar)
      fail_at(item, key, "must be a list of texts");
    found.push_back(item.Scalar());
  }
  return found;
}

yaml_reader yaml_reader::section(const std::string& key) {
  const auto node = need(key);
  if (!node.IsMap())
    fail_at(node, key, "must be a mapping of keys to values");
  return {file_, path_.empty() ? key : path_ + "." + key, node};
}

std::vector<yaml_reader> yaml_reader::sections(const std::string& key, bool required) {
  std::vector<yaml_reader> found;
  asked_.insert(key);
  if (!required && !has(key))
    return found;
  const auto node = need(key);
  if (!node.IsSequence())
    fail_at(node, key, "must be a list");
  std::size_t number = 0;
  for (const auto& item : node) {
    auto name = key + "[" + std::to_string(number++) + "]";
    if (!item.IsMap())
      fail_at(item, name, "must be a mapping of keys to values");
    found.push_back({file_, path_.empty() ? name : path_ + "." + name, item});
  }
  return found;
}

std::vector<std::vector<double>> yaml_reader::rows(const std::string& key, std::size_t width) {
  const auto node = need(key);
  if (!node.IsSequence())
    fail_at(node, key, "must be a list of rows");
  std::vector<std::vector<double>> found;
  for (const auto& item : node) {
    if (!item.IsSequence() || item.size() != width)
      fail_at(item, key, "every row must have " + std::to_string(width) + " numbers");
    auto& row = found.emplace_back();
    for (const auto& cell : item)
      row.push_back(to_number(cell, key, 0, 1e12));
  }
  return found;
}

std::vector<std::string> yaml_reader::keys() const {
  std::vector<std::string> found;
  for (const auto& item : node_) {
    if (!item.first.IsScalar())
      fail_at(item.first, "", "keys must be texts");
    found.push_back(item.first.Scalar());
  }
  return found;
}

void yaml_reader::refuse_other_keys() const {
  std::set<std::string> seen;
  for (const auto& item : node_) {
    const auto key = item.first.IsScalar() ? item.first.Scalar() : std::string("?");
    if (!asked_.contains(key))
      fail_at(item.first, key.substr(0, 60), "is not a key known here");
    if (!seen.insert(key).second)
      fail_at(item.first, key, "is given twice");
  }
}

} // namespace hexgen::config
