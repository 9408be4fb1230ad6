#include "tools/layout_option.hpp"

#include "tools/settings.hpp"

#include <numeric>
#include <sstream>

namespace hexgen::tools {
namespace {

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> out;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, at);)
    out.push_back(part);
  return out;
}

std::vector<std::vector<int>> numbers(const std::string& text, const std::string& option) {
  std::vector<std::vector<int>> out;
  for (const auto& replica : split(text, ';')) {
    out.emplace_back();
    for (const auto& n : split(replica, ',')) {
      std::size_t used = 0;
      int value = 0;
      try {
        value = std::stoi(n, &used);
      } catch (const std::exception&) {
        used = 0;
      }
      if (used == 0 || used != n.size() || value < 1 || value > 4096)
        throw usage_error(option + " is a list of numbers such as 2,1, not '" + text + "'");
      out.back().push_back(value);
    }
    if (out.back().empty())
      throw usage_error(option + " has an empty replica: '" + text + "'");
  }
  return out;
}

} // namespace

std::optional<scheduler::manual_layout>
parse_layout(const std::string& stages, const std::string& layers, const std::string& placement) {
  if (stages.empty() && layers.empty() && placement.empty())
    return std::nullopt;
  if (stages.empty() || layers.empty())
    throw usage_error("a layout by hand needs --stages and --layers");
  scheduler::manual_layout out;
  out.stages = numbers(stages, "--stages");
  out.layers = numbers(layers, "--layers");
  if (out.stages.size() != out.layers.size())
    throw usage_error("--stages and --layers name different numbers of replicas");
  for (std::size_t i = 0; i < out.stages.size(); ++i)
    if (out.stages[i].size() != out.layers[i].size())
      throw usage_error("--stages and --layers name different numbers of stages");
  if (placement.empty())
    return out;
  for (const auto& replica : split(placement, ';'))
    out.placement.push_back(split(replica, ','));
  if (out.placement.size() != out.stages.size())
    throw usage_error("--placement and --stages name different numbers of replicas");
  for (std::size_t i = 0; i < out.stages.size(); ++i) {
    const auto& s = out.stages[i];
    if (static_cast<int>(out.placement[i].size()) != std::accumulate(s.begin(), s.end(), 0))
      throw usage_error("--placement must name one device for each rank of --stages");
  }
  return out;
}

} // namespace hexgen::tools
