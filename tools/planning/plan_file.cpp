#include "tools/planning/plan_file.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace hexgen::tools {

namespace {

using nlohmann::ordered_json;

constexpr std::size_t most_plan_bytes = 64u << 20;

ordered_json finite(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

ordered_json stages_json(const planning_inputs& inputs, const scheduler::pipeline& line) {
  auto stages = ordered_json::array();
  for (const auto& stage : line) {
    auto devices = ordered_json::array();
    for (const int device : stage.devices)
      devices.push_back(inputs.pool->id(device));
    stages.push_back(
        {{"devices", devices}, {"first_layer", stage.first_layer}, {"layers", stage.layers}});
  }
  return stages;
}

std::string format(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

std::string stage_text(const planning_inputs& inputs, const scheduler::stage& stage) {
  std::string text = inputs.pool->id(stage.devices.front());
  if (stage.devices.size() > 1)
    text.append("..").append(inputs.pool->id(stage.devices.back()));
  const auto& kind = inputs.pool->kind(inputs.pool->kind_of(stage.devices.front()));
  return text.append(" (").append(kind.name).append(")");
}

[[noreturn]] void refuse(const std::string& path, const std::string& field,
                         const std::string& message) {
  throw std::runtime_error(path + ": " + field + ": " + message);
}

nlohmann::json load_json(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    throw std::runtime_error(path + ": cannot be read");
  std::string text;
  std::vector<char> piece(1u << 16);
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0) {
    text.append(piece.data(), static_cast<std::size_t>(in.gcount()));
    if (text.size() > most_plan_bytes)
      throw std::runtime_error(path + ": is larger than 64 MiB");
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(path + ": not valid JSON: " + error.what());
  }
}

std::string text_field(const nlohmann::json& from, const char* key) {
  const auto found = from.find(key);
  return found != from.end() && found->is_string() ? found->get<std::string>() : std::string();
}

int count_field(const nlohmann::json& from, const char* key, const std::string& path,
                const std::string& where) {
  const auto found = from.find(key);
  if (found == from.end() || !found->is_number_integer())
    refuse(path, where + "." + key, "must be a whole number");
  const auto value = found->get<std::int64_t>();
  if (value < 0 || value > 1'000'000)
    refuse(path, where + "." + key, "is out of range");
  return static_cast<int>(value);
}

} // namespace

std::vector<scheduler::stage_cost> mean_prices(const planning_inputs& inputs,
                                               const scheduler::pipeline& line) {
  std::vector<scheduler::stage_cost> mean(line.size());
  for (const auto& kind : inputs.workload.kinds) {
    const auto prices =
        scheduler::price_stages(*inputs.costs, line, kind.prompt_tokens, kind.output_tokens);
    for (std::size_t j = 0; j < mean.size(); ++j) {
      mean[j].compute_s += kind.share * prices[j].compute_s;
      mean[j].tensor_parallel_s += kind.share * prices[j].tensor_parallel_s;
      mean[j].pipeline_s += kind.share * prices[j].pipeline_s;
      mean[j].memory_bytes = std::max(mean[j].memory_bytes, prices[j].memory_bytes);
    }
  }
  return mean;
}

double mean_latency(const planning_inputs& inputs, const scheduler::pipeline& line) {
  double total = 0;
  for (const auto& cost : mean_prices(inputs, line))
    total += cost.compute_s + cost.tensor_parallel_s + cost.pipeline_s;
  return total;
}

std::string plan_json(const input_flags& flags, const planning_inputs& inputs,
                      const planned& plan) {
  auto replicas = ordered_json::array();
  for (const auto& line : plan.lines) {
    auto costs = ordered_json::array();
    for (const auto& cost : mean_prices(inputs, line))
      costs.push_back({{"compute_s", finite(cost.compute_s)},
                       {"tensor_parallel_s", finite(cost.tensor_parallel_s)},
                       {"pipeline_s", finite(cost.pipeline_s)},
                       {"memory_gb", finite(cost.memory_bytes / 1e9)}});
    replicas.push_back({{"stages", stages_json(inputs, line)},
                        {"request_latency_s", finite(mean_latency(inputs, line))},
                        {"stage_costs", costs}});
  }
  auto idle = ordered_json::array();
  for (const auto& one : plan.idle)
    idle.push_back({{"device", inputs.pool->id(one.device)}, {"why", one.why}});
  ordered_json all{{"model", inputs.model.name},
                   {"mode", flags.mode},
                   {"feasible", true},
                   {"replicas", replicas},
                   {"idle", idle},
                   {"slo_attainment", plan.attainment},
                   {"throughput_rps", finite(plan.throughput_rps)},
                   {"upper_bound_rps", finite(plan.bound_rps)},
                   {"slo_scale_needed", finite(plan.scale_needed)},
                   {"cluster", inputs.cluster.name},
                   {"price_per_hour", inputs.cluster.price_per_hour()}};
  if (flags.mode == "calibrated")
    all["concurrency"] = inputs.concurrency;
  if (!plan.why.empty())
    all["why"] = plan.why;
  if (plan.search)
    all["search"] = {{"seed", plan.search->seed},
                     {"generations", plan.search->generations},
                     {"evaluations", plan.search->evaluations},
                     {"seconds", plan.search->seconds},
                     {"ended", plan.search->ended}};
  return all.dump(2);
}

std::string failure_json(const input_flags& flags, const planning_inputs& inputs,
                         const failed_plan& failure) {
  auto violations = ordered_json::array();
  for (const auto& one : failure.violations)
    violations.push_back({{"device", one.device},
                          {"constraint", one.constraint},
                          {"need", finite(one.need)},
                          {"have", finite(one.have)}});
  return ordered_json{{"model", inputs.model.name},
                      {"mode", flags.mode},
                      {"feasible", false},
                      {"violations", violations},
                      {"help", failure.help}}
      .dump(2);
}

std::string plan_table(const input_flags& flags, const planning_inputs& inputs,
                       const planned& plan) {
  std::string text = inputs.model.name + " on " + inputs.cluster.name + " (" +
                     std::to_string(inputs.pool->devices()) + " devices, " + flags.mode +
                     " mode)\n\n";
  char row[256];
  std::snprintf(row, sizeof row, "%-8s %-6s %-34s %3s %9s %9s %9s %9s %9s\n", "replica", "stage",
                "devices", "tp", "layers", "comp s", "tp s", "hop s", "GB");
  text += row;
  for (std::size_t r = 0; r < plan.lines.size(); ++r) {
    const auto prices = mean_prices(inputs, plan.lines[r]);
    for (std::size_t j = 0; j < prices.size(); ++j) {
      const auto& stage = plan.lines[r][j];
      const auto layers = std::to_string(stage.first_layer) + "-" +
                          std::to_string(stage.first_layer + stage.layers - 1);
      std::snprintf(row, sizeof row, "%-8s %-6zu %-34s %3zu %9s %9.4f %9.4f %9.4f %9.3f\n",
                    j == 0 ? std::to_string(r).c_str() : "", j, stage_text(inputs, stage).c_str(),
                    stage.devices.size(), layers.c_str(), prices[j].compute_s,
                    prices[j].tensor_parallel_s, prices[j].pipeline_s,
                    prices[j].memory_bytes / 1e9);
      text += row;
    }
    text.append("         = ")
        .append(format("%.4f", mean_latency(inputs, plan.lines[r])))
        .append(" s a request\n");
  }
  for (const auto& one : plan.idle)
    text.append("idle     ")
        .append(inputs.pool->id(one.device))
        .append(": ")
        .append(one.why)
        .append("\n");
  for (const auto& line : plan.why)
    text.append("why      ").append(line).append("\n");
  text.append("\nSLO attainment ")
      .append(format("%.4f", plan.attainment))
      .append(" at ")
      .append(format("%g", flags.rate))
      .append(" requests/s and scale ")
      .append(format("%g", flags.slo_scale))
      .append("; ")
      .append(format("%g", 100 * flags.target))
      .append(" % need scale ")
      .append(format("%.3g", plan.scale_needed))
      .append("\n");
  text.append("throughput ")
      .append(format("%.4g", plan.throughput_rps))
      .append(" requests/s, no plan exceeds ")
      .append(format("%.4g", plan.bound_rps))
      .append("\n");
  if (const double price = inputs.cluster.price_per_hour(); price > 0)
    text.append("price ").append(format("%.2f", price)).append(" $/h\n");
  if (plan.search)
    text.append("search: ")
        .append(std::to_string(plan.search->generations))
        .append(" steps, ")
        .append(std::to_string(plan.search->evaluations))
        .append(" simulations, ")
        .append(format("%.2f", plan.search->seconds))
        .append(" s, ended by ")
        .append(plan.search->ended)
        .append("\n");
  return text;
}

plan_file read_plan_header(const std::string& path) {
  const auto json = load_json(path);
  if (!json.is_object())
    refuse(path, "plan", "must be an object");
  plan_file found{text_field(json, "model"), text_field(json, "mode"), 0, {}};
  if (json.contains("concurrency"))
    found.concurrency = std::clamp(count_field(json, "concurrency", path, "plan"), 0, 1024);
  return found;
}

std::vector<scheduler::running_pipeline> read_running_plan(const std::string& path) {
  const auto json = load_json(path);
  const auto replicas = json.is_object() ? json.find("replicas") : json.end();
  if (!json.is_object() || replicas == json.end() || !replicas->is_array() || replicas->empty())
    refuse(path, "replicas", "must be a list with at least one replica");
  std::vector<scheduler::running_pipeline> found;
  for (std::size_t r = 0; r < replicas->size(); ++r) {
    const auto where = "replicas[" + std::to_string(r) + "]";
    const auto& replica = (*replicas)[r];
    const auto stages = replica.is_object() ? replica.find("stages") : replica.end();
    if (!replica.is_object() || stages == replica.end() || !stages->is_array() || stages->empty())
      refuse(path, where + ".stages", "must be a list with at least one stage");
    scheduler::running_pipeline line;
    int next = 0;
    for (std::size_t j = 0; j < stages->size(); ++j) {
      const auto place = where + ".stages[" + std::to_string(j) + "]";
      const auto& stage = (*stages)[j];
      if (!stage.is_object() || !stage.contains("devices") || !stage["devices"].is_array() ||
          stage["devices"].empty())
        refuse(path, place + ".devices", "must be a list of device ids");
      scheduler::running_stage made;
      for (const auto& id : stage["devices"]) {
        if (!id.is_string())
          refuse(path, place + ".devices", "must be a list of device ids");
        made.devices.push_back(id.get<std::string>());
      }
      made.layers = count_field(stage, "layers", path, place);
      made.first_layer =
          stage.contains("first_layer") ? count_field(stage, "first_layer", path, place) : next;
      next = made.first_layer + made.layers;
      line.push_back(std::move(made));
    }
    found.push_back(std::move(line));
  }
  return found;
}

plan_file read_plan_file(const std::string& path, const scheduler::pool& pool) {
  plan_file found = read_plan_header(path);
  const auto running = read_running_plan(path);
  for (std::size_t r = 0; r < running.size(); ++r) {
    scheduler::pipeline line;
    for (std::size_t j = 0; j < running[r].size(); ++j) {
      const auto field =
          "replicas[" + std::to_string(r) + "].stages[" + std::to_string(j) + "].devices";
      scheduler::stage made;
      made.first_layer = running[r][j].first_layer;
      made.layers = running[r][j].layers;
      for (const auto& id : running[r][j].devices) {
        const int device = pool.find(id);
        if (device < 0)
          refuse(path, field, "the cluster has no device '" + id.substr(0, 80) + "'");
        if (std::find(made.devices.begin(), made.devices.end(), device) != made.devices.end())
          refuse(path, field, "names '" + id + "' twice");
        made.devices.push_back(device);
      }
      line.push_back(std::move(made));
    }
    found.lines.push_back(std::move(line));
  }
  return found;
}

} // namespace hexgen::tools
