#include "scheduler/serving_explain.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace hexgen::scheduler {

namespace {

std::string number(double value, int digits = 3) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%.*g", digits, value);
  return text.data();
}

std::string names(const serving_costs& costs, const std::vector<std::size_t>& members) {
  std::string text;
  for (const auto member : members)
    text += (text.empty() ? "" : " + ") + device_name(costs.devices[member]);
  return text;
}

/// Bytes of one more layer with its KV on a device that holds the model so.
double layer_bytes(const serving_costs& costs, const serving_sizes& sizes) {
  return static_cast<double>(sizes.layer_bytes) +
         static_cast<double>(sizes.kv_bytes_per_token_layer) * costs.goal.kv_tokens;
}

double best_request_with(const serving_costs& costs, std::size_t device) {
  // Alone, since a set that holds the model without it is what the plan already has.
  const auto splits = costs.splits({device});
  if (splits.empty() || costs.layer_cap({device}, splits.front(), true, true) < costs.model.layers)
    return std::numeric_limits<double>::infinity();
  serving_replica alone;
  alone.stages.push_back({0, costs.model.layers, {device}, splits.front().speeds});
  costs.price(alone);
  return alone.request_s;
}

std::string why_idle(const serving_costs& costs, const serving_plan& plan, std::size_t device) {
  if (!costs.usable(device))
    return costs.why_not(device);
  const auto& here = costs.devices[device];
  const auto& sizes = costs.sizes_of(device);
  const double room =
      static_cast<double>(here.memory_bytes) - static_cast<double>(sizes.activation_bytes);
  if (room < layer_bytes(costs, sizes))
    return "its " + format_bytes(static_cast<double>(here.memory_bytes)) +
           " hold not one layer of " + format_bytes(layer_bytes(costs, sizes)) + " (KV included)";
  if (!plan.feasible)
    return "no plan";
  bool reachable = false;
  for (const auto& replica : plan.replicas)
    for (const auto& stage : replica.stages)
      for (const auto member : stage.devices) {
        const int other = costs.node_of(member), own = costs.node_of(device);
        reachable = reachable || own == other ||
                    (std::isfinite(costs.decode_hop_us(own, other)) &&
                     std::isfinite(costs.decode_hop_us(other, own)));
      }
  const double alone = best_request_with(costs, device);
  if (!reachable && !std::isfinite(alone))
    return "no link to the devices of any replica, and too small to hold the model alone";
  const auto& fastest = plan.replicas.front();
  if (std::isfinite(alone))
    return "alone it would need " + number(alone) + " s for a request (the fastest replica " +
           number(fastest.request_s) + " s); one more replica was not asked for or does not pay";
  return "too small for a replica of its own; as a part of one it would slow requests down (now " +
         number(fastest.request_s) + " s) by more than the memory it adds is worth";
}

std::string why_stage(const serving_costs& costs, const serving_replica& replica, std::size_t r,
                      std::size_t j) {
  const auto& stage = replica.stages[j];
  const bool first = j == 0, last = j + 1 == replica.stages.size();
  const auto split = costs.split_by(stage.devices, stage.speeds);
  const int cap = costs.layer_cap(stage.devices, split, first, last);
  double time = stage.layers * split.decode_us + (last ? split.head_us : 0);
  std::string text =
      "replica " + std::to_string(r) + " stage " + std::to_string(j) + " (" +
      names(costs, stage.devices) + "): layers " + std::to_string(stage.first_layer) + "-" +
      std::to_string(stage.first_layer + stage.layers - 1) + ", " + number(time / 1000) +
      " ms a token, " + number(split.decode_us) + " us a layer; ";
  if (stage.layers >= cap)
    return text + "as many layers as memory holds";
  if (replica.stages.size() == 1)
    return text + "holds the whole model, room for " + std::to_string(cap) + " layers";
  if (costs.goal.concurrency > 1)
    return text + "shared out for " + std::to_string(costs.goal.concurrency) +
           " requests at once, room for " + std::to_string(cap);
  bool faster_full = true;
  for (std::size_t i = 0; i < replica.stages.size(); ++i) {
    if (i == j)
      continue;
    const auto& other = replica.stages[i];
    const auto theirs = costs.split_by(other.devices, other.speeds);
    if (theirs.request_us < split.request_us)
      faster_full = faster_full && other.layers >= costs.layer_cap(other.devices, theirs, i == 0,
                                                                   i + 1 == replica.stages.size());
  }
  return text +
         (faster_full ? "takes what the faster stages' memory left, room for "
                      : "layers given, room for ") +
         std::to_string(cap);
}

} // namespace

std::string device_name(const serving_device& device) {
  return device.node + "/" + std::to_string(device.index);
}

std::string format_bytes(double bytes) {
  constexpr std::array<const char*, 5> units{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (std::abs(bytes) >= 1024 && unit + 1 < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  return number(bytes, bytes >= 1000 ? 4 : 3) + " " + units[unit];
}

void explain(const serving_costs& costs, serving_plan& plan) {
  std::vector<bool> used(costs.devices.size(), false);
  for (std::size_t r = 0; r < plan.replicas.size(); ++r)
    for (std::size_t j = 0; j < plan.replicas[r].stages.size(); ++j) {
      for (const auto member : plan.replicas[r].stages[j].devices)
        used[member] = true;
      plan.why.push_back(why_stage(costs, plan.replicas[r], r, j));
    }
  for (std::size_t i = 0; i < costs.devices.size(); ++i)
    if (!used[i])
      plan.idle.push_back({i, why_idle(costs, plan, i)});
}

std::string explain_missing(const serving_costs& costs) {
  const auto& model = costs.model;
  const serving_sizes* least = &model; // of the usable device that takes the fewest bytes a layer
  for (std::size_t i = 0, found = 0; i < costs.devices.size(); ++i)
    if (costs.usable(i) &&
        (found++ == 0 || layer_bytes(costs, costs.sizes_of(i)) < layer_bytes(costs, *least)))
      least = &costs.sizes_of(i);
  double have = 0;
  int usable = 0, layers = 0;
  std::string waiting;
  for (std::size_t i = 0; i < costs.devices.size(); ++i) {
    if (!costs.usable(i)) {
      waiting +=
          (waiting.empty() ? "" : ", ") + device_name(costs.devices[i]) + " is " + costs.why_not(i);
      continue;
    }
    ++usable;
    const auto& sizes = costs.sizes_of(i);
    const double room = static_cast<double>(costs.devices[i].memory_bytes) -
                        static_cast<double>(sizes.activation_bytes);
    have += std::max(0.0, room);
    layers +=
        std::max(0, static_cast<int>(std::min(1e6, std::floor(room / layer_bytes(costs, sizes)))));
  }
  const auto tail = waiting.empty() ? std::string() : " (" + waiting + ")";
  if (usable == 0)
    return "no usable device has joined" + tail;
  const double need = model.layers * layer_bytes(costs, *least) +
                      static_cast<double>(least->embedding_bytes) +
                      static_cast<double>(least->head_bytes);
  if (have < need) {
    std::string text = "the model with " + std::to_string(costs.goal.kv_tokens) +
                       " tokens of KV needs " + format_bytes(need) + " beside activations, " +
                       std::to_string(usable) + " device" + (usable == 1 ? " has " : "s have ") +
                       format_bytes(have) + ": " + format_bytes(need - have) + " more are missing";
    const double token = static_cast<double>(least->kv_bytes_per_token_layer) * model.layers;
    const double weights = need - token * costs.goal.kv_tokens;
    if (have > weights && token > 0) {
      const double tokens = std::floor((have - weights) / token);
      text += "; at most about " + number(tokens, 6) + " tokens of KV would fit";
    } else {
      text += "; join another device or raise a memory limit";
    }
    return text + tail;
  }
  if (layers < model.layers)
    return "memory is enough in sum, but whole layers of " + format_bytes(layer_bytes(costs, *least)) +
           " fill only " + std::to_string(layers) + " of " + std::to_string(model.layers) +
           ": raise the memory limit of a device by about one layer" + tail;
  return "the devices together hold the model, but no order of stages joins them: a link between "
         "two nodes is missing, or the embedding (" +
         format_bytes(static_cast<double>(least->embedding_bytes)) + ") or head (" +
         format_bytes(static_cast<double>(least->head_bytes)) +
         ") fits on no device beside its layers; connect the nodes or raise a memory limit" + tail;
}

std::string explain_broken_link(const serving_costs& costs, const serving_replica& replica) {
  for (std::size_t j = 0; j < replica.stages.size(); ++j) {
    const auto next = (j + 1) % replica.stages.size();
    const int from = costs.node_of(replica.stages[j].devices.front());
    const int to = costs.node_of(replica.stages[next].devices.front());
    if (!std::isfinite(costs.decode_hop_us(from, to)))
      return "no link from " + costs.node_name(from) + " to " + costs.node_name(to);
  }
  return "a link is missing";
}

} // namespace hexgen::scheduler
