#include "tools/bench_serve/bench_report.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

namespace hexgen::tools {

namespace {

constexpr const char* metric_names[] = {"ttft", "tpot", "itl", "e2el"};

int peak_of(const std::vector<bench_record>& records) {
  std::vector<std::pair<double, int>> changes;
  for (const auto& one : records)
    if (one.ok) {
      changes.emplace_back(one.start_s, 1);
      changes.emplace_back(one.start_s + one.e2el_s, -1);
    }
  std::sort(changes.begin(), changes.end()); // an end before a start at the same time
  int now = 0, peak = 0;
  for (const auto& [when, change] : changes)
    peak = std::max(peak, now += change);
  return peak;
}

bool in_time(const bench_record& one, const std::map<std::string, double>& deadlines_ms) {
  const std::map<std::string, double> got = {
      {"ttft", one.ttft_s}, {"tpot", one.tpot_s()}, {"e2el", one.e2el_s}};
  return std::all_of(deadlines_ms.begin(), deadlines_ms.end(),
                     [&](const auto& limit) { return got.at(limit.first) * 1e3 <= limit.second; });
}

double per_second(double count, double seconds) {
  return seconds > 0 ? count / seconds : 0;
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

std::string line(const std::string& label, double value, const char* form) {
  char number[64];
  std::snprintf(number, sizeof number, form, value);
  auto text = label;
  text.resize(std::max<std::size_t>(text.size() + 1, 42), ' ');
  return text + number + "\n";
}

} // namespace

double bench_record::tpot_s() const {
  return output_tokens > 1 ? (e2el_s - ttft_s) / (output_tokens - 1) : 0;
}

double percentile(const std::vector<double>& sorted, double percent) {
  if (sorted.empty())
    return 0;
  const double at = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

bench_figures figures_of(std::vector<double> values, const std::vector<double>& percentiles) {
  bench_figures figures;
  std::sort(values.begin(), values.end());
  if (!values.empty()) {
    const auto n = static_cast<double>(values.size());
    figures.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
    double squares = 0;
    for (const double v : values)
      squares += (v - figures.mean) * (v - figures.mean);
    figures.deviation = std::sqrt(squares / n);
  }
  figures.median = percentile(values, 50);
  for (const double p : percentiles)
    figures.percentiles[p] = percentile(values, p);
  return figures;
}

bench_report make_report(const std::vector<bench_record>& records, double duration_s,
                         const bench_options& options) {
  bench_report report;
  report.duration_s = duration_s;
  std::map<std::string, std::vector<double>> ms;
  for (const auto& one : records) {
    if (!one.ok) {
      ++report.failed;
      ++report.errors[one.error];
      continue;
    }
    ++report.completed;
    report.input_tokens += one.prompt_tokens;
    report.output_tokens += one.output_tokens;
    report.within_deadlines += in_time(one, options.goodput_ms) ? 1 : 0;
    ms["ttft"].push_back(one.ttft_s * 1e3);
    ms["e2el"].push_back(one.e2el_s * 1e3);
    ms["tpot"].push_back(one.tpot_s() * 1e3);
    for (const double gap : one.inter_token_s)
      ms["itl"].push_back(gap * 1e3);
  }
  report.peak_concurrency = peak_of(records);
  for (const char* name : metric_names)
    report.milliseconds[name] = figures_of(std::move(ms[name]), options.percentiles);
  return report;
}

std::string report_text(const bench_report& report, const bench_options& options) {
  const double s = report.duration_s;
  std::string text;
  text += line("Successful requests:", report.completed, "%.0f");
  text += line("Failed requests:", report.failed, "%.0f");
  for (const auto& [error, count] : report.errors)
    text += line("  " + error + ":", count, "%.0f");
  text += line("Duration (s):", s, "%.2f");
  text += line("Total input tokens:", static_cast<double>(report.input_tokens), "%.0f");
  text += line("Total generated tokens:", static_cast<double>(report.output_tokens), "%.0f");
  text += line("Request throughput (req/s):", per_second(report.completed, s), "%.2f");
  text += line("Output token throughput (tok/s):",
               per_second(static_cast<double>(report.output_tokens), s), "%.2f");
  text +=
      line("Total token throughput (tok/s):",
           per_second(static_cast<double>(report.input_tokens + report.output_tokens), s), "%.2f");
  text += line("Peak concurrent requests:", report.peak_concurrency, "%.0f");
  if (!options.goodput_ms.empty()) {
    text += line("Goodput (req/s meeting every deadline):", per_second(report.within_deadlines, s),
                 "%.2f");
    text += line("SLO attainment (share of all requests):",
                 per_second(report.within_deadlines, report.completed + report.failed), "%.4f");
  }
  for (const char* name : metric_names) {
    std::string upper;
    for (const char c : std::string(name))
      upper += c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
    const auto& figures = report.milliseconds.at(name);
    text += line("Mean " + upper + " (ms):", figures.mean, "%.2f");
    text += line("Median " + upper + " (ms):", figures.median, "%.2f");
    for (const auto& [p, value] : figures.percentiles)
      text += line("P" + short_number(p) + " " + upper + " (ms):", value, "%.2f");
  }
  return text;
}

std::string report_json(const bench_report& report, const bench_options& options) {
  const double s = report.duration_s;
  nlohmann::ordered_json j;
  j["model"] = options.model;
  j["num_prompts"] = options.num_prompts;
  j["request_rate"] = std::isinf(options.request_rate)
                          ? nlohmann::ordered_json("inf")
                          : nlohmann::ordered_json(options.request_rate);
  j["burstiness"] = options.burstiness;
  j["max_concurrency"] = nullptr;
  if (options.max_concurrency > 0)
    j["max_concurrency"] = options.max_concurrency;
  j["random_input_len"] = options.input_len;
  j["random_output_len"] = options.output_len;
  j["seed"] = options.seed;
  j["duration"] = s;
  j["completed"] = report.completed;
  j["failed"] = report.failed;
  j["errors"] = report.errors;
  j["total_input_tokens"] = report.input_tokens;
  j["total_output_tokens"] = report.output_tokens;
  j["request_throughput"] = per_second(report.completed, s);
  j["output_throughput"] = per_second(static_cast<double>(report.output_tokens), s);
  j["total_token_throughput"] =
      per_second(static_cast<double>(report.input_tokens + report.output_tokens), s);
  j["max_concurrent_requests"] = report.peak_concurrency;
  if (!options.goodput_ms.empty()) {
    j["deadlines_ms"] = options.goodput_ms;
    j["request_goodput"] = per_second(report.within_deadlines, s);
    j["slo_attainment"] = per_second(report.within_deadlines, report.completed + report.failed);
  }
  for (const char* name : metric_names) {
    const auto& figures = report.milliseconds.at(name);
    const auto key = [&](const std::string& what) { return what + "_" + name + "_ms"; };
    j[key("mean")] = figures.mean;
    j[key("median")] = figures.median;
    j[key("std")] = figures.deviation;
    for (const auto& [p, value] : figures.percentiles)
      j[key("p" + short_number(p))] = value;
  }
  return j.dump(2);
}

} // namespace hexgen::tools
