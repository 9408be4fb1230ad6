#include "config/workload.hpp"

#include "config/yaml_reader.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>

namespace hexgen::config {

namespace {

constexpr int longest_length = 1 << 20;
constexpr std::size_t most_trace = 1'000'000;

struct length_share {
  int tokens;
  double share;
};

double normal_quantile(double p) {
  // Bisection on erfc: exact to the last bits, called a few dozen times.
  double low = -8, high = 8;
  for (int i = 0; i < 80; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

/// The middle of each of 12 equally likely parts, rescaled so that the mean is kept.
std::vector<length_share> lognormal(double mean, double cv, int most) {
  constexpr int parts = 12;
  const double variance = std::log1p(cv * cv), mu = std::log(mean) - variance / 2;
  std::vector<double> lengths;
  double sum = 0;
  for (int i = 0; i < parts; ++i) {
    const double z = normal_quantile((i + 0.5) / parts);
    lengths.push_back(std::min<double>(most, std::exp(mu + std::sqrt(variance) * z)));
    sum += lengths.back();
  }
  std::vector<length_share> found;
  for (const double length : lengths) {
    const double scaled = std::clamp(length * mean * parts / sum, 1.0, static_cast<double>(most));
    found.push_back({static_cast<int>(std::lround(scaled)), 1.0 / parts});
  }
  return found;
}

std::vector<length_share> read_lengths(yaml_reader& top, const std::string& key) {
  if (!top.is_mapping(key))
    return {{static_cast<int>(top.integer(key, 1, longest_length)), 1.0}};
  auto from = top.section(key);
  std::vector<length_share> found;
  if (from.has("uniform")) {
    const auto values = from.numbers("uniform", 1, longest_length);
    for (const double value : values) {
      if (value != std::floor(value))
        from.fail("uniform", "lengths must be whole numbers");
      found.push_back({static_cast<int>(value), 1.0 / static_cast<double>(values.size())});
    }
  } else if (from.has("lognormal")) {
    auto shape = from.section("lognormal");
    const auto most = static_cast<int>(shape.integer("most", 1, longest_length));
    const double mean = shape.number("mean", 1, most), cv = shape.number("cv", 0.01, 10);
    shape.refuse_other_keys();
    found = lognormal(mean, cv, most);
  } else {
    top.fail(key, "must be a number, {uniform: [...]} or {lognormal: {mean, cv, most}}");
  }
  from.refuse_other_keys();
  return found;
}

void read_trace(yaml_reader& top, const std::string& file, workload& into) {
  const auto name = top.text("trace");
  const auto path = (std::filesystem::path(file).parent_path() / name).string();
  std::istringstream lines(read_config_text(path));
  std::map<std::pair<int, int>, int> known;
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.empty() || line[0] == '#')
      continue;
    std::istringstream cells(line);
    double time = 0, prompt = 0, output = 0;
    char comma = 0, other = 0;
    if (!(cells >> time >> comma >> prompt >> other >> output) || comma != ',' || other != ',')
      throw config_error(path, number, "", "must be seconds,prompt tokens,output tokens");
    if (!std::isfinite(time) || time < 0 || prompt < 1 || prompt > longest_length || output < 1 ||
        output > longest_length)
      throw config_error(path, number, "", "a number is out of range");
    if (!into.trace.empty() && time < into.trace.back().time_s)
      throw config_error(path, number, "", "times must not fall");
    if (into.trace.size() >= most_trace)
      throw config_error(path, number, "", "more than a million requests");
    const std::pair<int, int> lengths{static_cast<int>(prompt), static_cast<int>(output)};
    const auto [found, fresh] = known.emplace(lengths, static_cast<int>(into.kinds.size()));
    if (fresh)
      into.kinds.push_back({lengths.first, lengths.second, 0});
    into.kinds[static_cast<std::size_t>(found->second)].share += 1;
    into.trace.push_back({time, found->second});
  }
  if (into.trace.size() < 2 || into.trace.back().time_s <= 0)
    throw config_error(path, 0, "", "needs at least two requests at different times");
  for (auto& kind : into.kinds)
    kind.share /= static_cast<double>(into.trace.size());
}

} // namespace

double workload::mean_prompt() const {
  double mean = 0;
  for (const auto& kind : kinds)
    mean += kind.share * kind.prompt_tokens;
  return mean;
}

double workload::mean_output() const {
  double mean = 0;
  for (const auto& kind : kinds)
    mean += kind.share * kind.output_tokens;
  return mean;
}

int workload::longest() const {
  int most = 0;
  for (const auto& kind : kinds)
    most = std::max(most, kind.prompt_tokens + kind.output_tokens);
  return most;
}

workload fixed_workload(int prompt_tokens, int output_tokens) {
  workload made;
  made.name = std::to_string(prompt_tokens) + "/" + std::to_string(output_tokens);
  made.kinds.push_back({prompt_tokens, output_tokens, 1.0});
  return made;
}

workload parse_workload(const std::string& file, const std::string& text) {
  auto top = yaml_reader::parse(file, text);
  workload found;
  found.name = top.text("name");
  auto arrivals = top.section("arrivals");
  const auto process = arrivals.text("process");
  if (process == "gamma") {
    found.arrivals = arrival_process::gamma;
    found.gamma_cv = arrivals.number("cv", 0.05, 50);
  } else if (process == "mmpp") {
    found.arrivals = arrival_process::mmpp;
    found.burst_share = arrivals.number("burst_share", 1e-3, 0.999);
    found.burst_factor = arrivals.number("burst_factor", 1, 1 / found.burst_share);
    found.burst_seconds = arrivals.number("burst_seconds", 1e-3, 1e6);
  } else if (process == "trace") {
    found.arrivals = arrival_process::trace;
  } else if (process != "poisson") {
    arrivals.fail("process", "must be poisson, gamma, mmpp or trace");
  }
  arrivals.refuse_other_keys();
  if (found.arrivals == arrival_process::trace) {
    read_trace(top, file, found);
  } else {
    const auto prompts = read_lengths(top, "prompt_tokens");
    const auto outputs = read_lengths(top, "output_tokens");
    if (prompts.size() * outputs.size() > 4096)
      top.fail("prompt_tokens", "more than 4096 combinations of lengths");
    for (const auto& prompt : prompts)
      for (const auto& output : outputs)
        found.kinds.push_back({prompt.tokens, output.tokens, prompt.share * output.share});
  }
  static_cast<void>(top.text("source", ""));
  top.refuse_other_keys();
  return found;
}

workload read_workload(const std::string& path) {
  return parse_workload(path, read_config_text(path));
}

} // namespace hexgen::config
