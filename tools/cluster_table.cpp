#include "tools/cluster_table.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <vector>

namespace hexgen::tools {
namespace {

using json = nlohmann::json;
using row = std::vector<std::string>;

std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string text_of(const json& j, const char* key) {
  return j.contains(key) && j[key].is_string() ? j[key].get<std::string>() : std::string();
}

double value_of(const json& j, const char* key) {
  return j.contains(key) && j[key].is_number() ? j[key].get<double>() : 0;
}

std::string format(const std::vector<row>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& r : rows)
    for (std::size_t i = 0; i < r.size(); ++i) {
      widths.resize(std::max(widths.size(), i + 1));
      widths[i] = std::max(widths[i], r[i].size());
    }
  std::string out;
  for (const auto& r : rows) {
    std::string line = " ";
    for (std::size_t i = 0; i < r.size(); ++i) {
      line += " " + r[i];
      if (i + 1 < r.size())
        line += std::string(widths[i] - r[i].size() + 1, ' ');
    }
    out += line + "\n";
  }
  return out;
}

std::string state_of(const json& node) {
  const auto state = text_of(node, "state");
  return !node.contains("load_progress") || node["load_progress"].is_null()
             ? state
             : state + ", " + number(100 * value_of(node, "load_progress"), 0) + " % loaded";
}

std::string nodes(const json& cluster) {
  std::vector<row> rows{
      {"NODE", "STATE", "DEVICE", "MEMORY", "SPEED", "DECODE us/layer", "ADDRESS"}};
  for (const auto& n : cluster.value("nodes", json::array()))
    for (const auto& d : n.value("devices", json::array()))
      rows.push_back({text_of(n, "name"), state_of(n), text_of(d, "id"),
                      number(value_of(d, "memory_bytes") / (1 << 20), 0) + " MiB",
                      number(value_of(d, "speed"), 2),
                      number(value_of(d, "decode_us_per_layer"), 0), text_of(n, "address")});
  return "Nodes\n" + format(rows);
}

std::string links(const json& cluster) {
  std::vector<row> rows{{"FROM", "TO", "KIND", "LATENCY us", "BANDWIDTH Gbit/s", ""}};
  for (const auto& l : cluster.value("links", json::array()))
    rows.push_back({text_of(l, "from"), text_of(l, "to"), text_of(l, "kind"),
                    number(value_of(l, "latency_us"), 0), number(value_of(l, "bandwidth_gbps"), 2),
                    !l.value("reachable", false)  ? "unreachable: " + text_of(l, "detail")
                    : text_of(l, "relay").empty() ? ""
                                                  : "through " + text_of(l, "relay")});
  return rows.size() == 1 ? "" : "Links\n" + format(rows);
}

std::string plan(const json& cluster) {
  const auto p = cluster.value("plan", json::object());
  std::string out = "Plan, epoch " + number(value_of(cluster, "epoch"), 0) + "\n";
  for (const auto& r : p.value("replicas", json::array())) {
    out += "  replica " + number(value_of(r, "replica"), 0) + ", generation " +
           number(value_of(r, "generation"), 0) + ": " + text_of(r, "state") + ", predicted " +
           number(value_of(r, "predicted_tokens_per_s"), 1) + " tokens/s, " +
           number(value_of(r, "kv_blocks"), 0) + " KV blocks\n";
    int stage = 0;
    for (const auto& s : r.value("stages", json::array())) {
      std::string devices;
      for (const auto& d : s.value("devices", json::array()))
        devices += (devices.empty() ? "" : " + ") + (d.is_string() ? d.get<std::string>() : "?");
      const int first = static_cast<int>(value_of(s, "first_layer"));
      const int count = static_cast<int>(value_of(s, "layers"));
      out += "    stage " + std::to_string(stage++) + ": layers " + std::to_string(first) + "-" +
             std::to_string(first + count - 1) + " (" + std::to_string(count) + ") on " + devices +
             "\n";
    }
    if (r.contains("load"))
      out += "    running " + number(value_of(r["load"], "running"), 0) + ", waiting " +
             number(value_of(r["load"], "waiting"), 0) + ", " +
             number(value_of(r["load"], "tokens_per_s"), 1) + " tokens/s, free blocks " +
             number(value_of(r["load"], "free_blocks"), 0) + "\n";
  }
  for (const auto& line : p.value("why", json::array()))
    if (line.is_string())
      out += "  why: " + line.get<std::string>() + "\n";
  for (const auto& i : p.value("idle", json::array()))
    out += "  idle: " + text_of(i, "device") + ": " + text_of(i, "why") + "\n";
  if (const auto missing = text_of(cluster, "missing"); !missing.empty())
    out += "  missing: " + missing + "\n";
  return out;
}

} // namespace

std::string cluster_table(const std::string& text) {
  const auto cluster = json::parse(text, nullptr, false);
  if (cluster.is_discarded() || !cluster.is_object())
    throw std::runtime_error("the answer is not a cluster's status");
  std::string out = "Model " + text_of(cluster, "model") +
                    (cluster.value("ready", false) ? ", ready" : ", not ready") + "\n";
  out += nodes(cluster) + links(cluster) + plan(cluster);
  if (const auto counts = cluster.value("counts", json::object()); counts.is_object())
    out += "Searches " + number(value_of(counts, "searches"), 0) + ", generations lost " +
           number(value_of(counts, "generations_failed"), 0) + ", requests moved " +
           number(value_of(counts, "requests_moved"), 0) +
           ", last search: " + text_of(counts, "last_search_why") + "\n";
  return out;
}

} // namespace hexgen::tools
