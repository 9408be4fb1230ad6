#include "scheduler/serving_cost.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double bytes_per_value = 4; // hops and all-reduces carry float32
constexpr double token_bytes = 4;
// Two stages of one node talk through shared memory; an explicit link node -> node overrides.
constexpr double same_node_latency_us = 5;
constexpr double same_node_gbps = 100;

bool positive(double value) {
  return std::isfinite(value) && value > 0;
}

std::string check_input(const serving_model& model, const serving_goal& goal) {
  if (model.layers <= 0)
    return "the model has no layers";
  if (model.kv_heads <= 0 || model.hidden <= 0)
    return "the model's hidden size and KV heads must be positive";
  if (goal.kv_tokens < 0 || goal.prompt_tokens < 0 || goal.output_tokens < 0)
    return "the goal's token counts must not be negative";
  return {};
}

} // namespace

std::vector<int> share_leaves(int count, const std::vector<double>& speeds, int least) {
  const auto ranks = static_cast<int>(speeds.size());
  std::vector<int> shares(speeds.size(), least);
  int left = count - least * ranks;
  if (left <= 0)
    return shares;
  const double total = std::accumulate(speeds.begin(), speeds.end(), 0.0);
  // Each further leaf goes where the finished share would be smallest against its speed.
  std::vector<double> ideal(speeds.size());
  for (std::size_t i = 0; i < speeds.size(); ++i)
    ideal[i] = count * speeds[i] / total;
  for (; left > 0; --left) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < speeds.size(); ++i)
      if (ideal[i] - shares[i] > ideal[best] - shares[best] + 1e-12)
        best = i;
    ++shares[best];
  }
  return shares;
}

serving_costs::serving_costs(const std::vector<serving_device>& devices_in,
                             const std::vector<serving_link>& links, const serving_model& model_in,
                             const serving_goal& goal_in)
    : devices(devices_in), model(model_in), goal(goal_in) {
  bad_input_ = check_input(model, goal);
  std::map<std::string, int> index;
  for (const auto& device : devices)
    index.emplace(device.node, 0);
  for (auto& [name, number] : index) {
    number = static_cast<int>(nodes_.size());
    nodes_.push_back(name);
  }
  for (const auto& device : devices) {
    node_of_.push_back(index[device.node]);
    std::string why;
    if (device.draining)
      why = "draining";
    else if (!positive(device.decode_us_per_layer) ||
             !positive(device.prefill_us_per_token_layer) || !std::isfinite(device.head_us) ||
             device.head_us < 0)
      why = "not measured yet";
    why_not_.push_back(std::move(why));
  }
  const auto n = nodes_.size();
  links_.assign(n * n, link_cost{infinity, infinity});
  for (std::size_t i = 0; i < n; ++i)
    links_[i * n + i] = {same_node_latency_us, 8e-3 / same_node_gbps};
  for (const auto& link : links) {
    const auto from = index.find(link.from), to = index.find(link.to);
    if (from == index.end() || to == index.end())
      continue; // a link to a node without devices
    if (!std::isfinite(link.latency_us) || link.latency_us < 0 || !positive(link.bandwidth_gbps))
      continue; // measured as unreachable
    links_[static_cast<std::size_t>(from->second) * n + static_cast<std::size_t>(to->second)] = {
        link.latency_us, 8e-3 / link.bandwidth_gbps};
  }
}

int serving_costs::further_tokens() const {
  return std::max(0, goal.output_tokens - 1);
}

double serving_costs::hop_us(int from, int to, double bytes) const {
  const auto& link =
      links_[static_cast<std::size_t>(from) * nodes_.size() + static_cast<std::size_t>(to)];
  return link.latency_us + bytes * link.us_per_byte;
}

double serving_costs::decode_hop_us(int from, int to) const {
  return hop_us(from, to, model.hidden * bytes_per_value);
}

double serving_costs::request_hop_us(int from, int to) const {
  return hop_us(from, to, std::max(1, goal.prompt_tokens) * model.hidden * bytes_per_value) +
         further_tokens() * decode_hop_us(from, to);
}

double serving_costs::decode_return_us(int from, int to) const {
  return from == to ? 0.0 : hop_us(from, to, token_bytes);
}

double serving_costs::request_return_us(int from, int to) const {
  return (1 + further_tokens()) * decode_return_us(from, to);
}

stage_split serving_costs::split_by(const std::vector<std::size_t>& members,
                                    const std::vector<double>& speeds) const {
  stage_split split;
  split.devices = members;
  split.speeds = speeds;
  const auto heads = share_leaves(model.kv_heads, speeds, 1);
  const int leaf_count = std::max(1, model.ffn_leaves);
  const auto leaves = share_leaves(leaf_count, speeds, 0);
  const double total = std::accumulate(speeds.begin(), speeds.end(), 0.0);
  const double prompt = std::max(1, goal.prompt_tokens);
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto& device = devices[members[i]];
    const double share = model.attention_share * heads[i] / model.kv_heads +
                         (1 - model.attention_share) * leaves[i] / leaf_count;
    const double head = speeds[i] / total;
    split.layer_share.push_back(share);
    split.kv_share.push_back(static_cast<double>(heads[i]) / model.kv_heads);
    split.head_share.push_back(head);
    split.decode_us = std::max(split.decode_us, share * device.decode_us_per_layer);
    split.prefill_us =
        std::max(split.prefill_us, share * prompt * device.prefill_us_per_token_layer);
    split.head_us = std::max(split.head_us, head * device.head_us);
  }
  if (members.size() > 1) {
    // The planner keeps a stage on one node; by hand it may span two.
    const double bytes = model.hidden * bytes_per_value;
    double decode = 0, prefill = 0;
    for (const auto a : members)
      for (const auto b : members)
        if (a != b) {
          decode = std::max(decode, hop_us(node_of_[a], node_of_[b], bytes));
          prefill = std::max(prefill, hop_us(node_of_[a], node_of_[b], prompt * bytes));
        }
    split.decode_us += 2 * (goal.tensor_parallel_overhead_us + decode);
    split.prefill_us += 2 * (goal.tensor_parallel_overhead_us + prefill);
  }
  split.request_us = split.prefill_us + further_tokens() * split.decode_us;
  return split;
}

std::vector<stage_split> serving_costs::splits(const std::vector<std::size_t>& members) const {
  std::vector<stage_split> found;
  if (members.empty() || static_cast<int>(members.size()) > model.kv_heads)
    return found;
  const double prompt = std::max(1, goal.prompt_tokens);
  std::vector<double> by_speed, even(members.size(), 1.0), by_memory;
  for (const auto member : members) {
    const auto& device = devices[member];
    by_speed.push_back(1e6 / (prompt * device.prefill_us_per_token_layer +
                              further_tokens() * device.decode_us_per_layer));
    const double room =
        static_cast<double>(device.memory_bytes) -
        static_cast<double>(sizes_of(member).activation_bytes);
    by_memory.push_back(std::max(1.0, room));
  }
  found.push_back(split_by(members, by_speed));
  if (members.size() == 1)
    return found;
  for (const auto* speeds : {&even, &by_memory}) {
    auto split = split_by(members, *speeds);
    const bool known = std::any_of(found.begin(), found.end(), [&](const stage_split& other) {
      return other.layer_share == split.layer_share && other.head_share == split.head_share;
    });
    if (!known)
      found.push_back(std::move(split));
  }
  return found;
}

const serving_sizes& serving_costs::sizes_of(std::size_t device) const {
  const auto& own = devices[device].sizes;
  return own.layer_bytes > 0 ? own : model;
}

double serving_costs::stage_bytes(const stage_split& split, std::size_t rank, int layers,
                                  bool first, bool last) const {
  const auto& sizes = sizes_of(split.devices[rank]);
  const double layer =
      static_cast<double>(sizes.layer_bytes) * split.layer_share[rank] +
      static_cast<double>(sizes.kv_bytes_per_token_layer) * goal.kv_tokens * split.kv_share[rank];
  double bytes = static_cast<double>(sizes.activation_bytes) + layers * layer;
  if (first && rank == 0)
    bytes += static_cast<double>(sizes.embedding_bytes);
  if (last)
    bytes += static_cast<double>(sizes.head_bytes) * split.head_share[rank];
  return bytes;
}

int serving_costs::layer_cap(const std::vector<std::size_t>& members, const stage_split& split,
                             bool first, bool last) const {
  double cap = 1e9;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const double fixed = stage_bytes(split, i, 0, first, last);
    const double layer = stage_bytes(split, i, 1, first, last) - fixed;
    const double room = static_cast<double>(devices[members[i]].memory_bytes) - fixed;
    if (room < 0)
      return 0;
    if (layer > 0)
      cap = std::min(cap, std::floor(room / layer * (1 + 1e-12)));
  }
  return static_cast<int>(cap);
}

double serving_costs::load_us(const stage_split& split, int layers, bool last,
                              std::size_t stages) const {
  // Sequences of a step; each after the first costs what a prompt's token does.
  const double batch =
      std::max(1.0, goal.concurrency / static_cast<double>(std::max<std::size_t>(1, stages)));
  const double token_us = split.prefill_us / std::max(1, goal.prompt_tokens);
  const double head_token_us = token_us * static_cast<double>(model.head_bytes) /
                               static_cast<double>(std::max<std::uint64_t>(1, model.layer_bytes));
  double us = layers * (split.prefill_us +
                        further_tokens() * (split.decode_us + (batch - 1) * token_us) / batch);
  if (last)
    us += (1 + further_tokens()) * (split.head_us + (batch - 1) * head_token_us) / batch;
  return us;
}

void serving_costs::price(serving_replica& replica) const {
  double decode = 0, request = 0, bottleneck = 0;
  const auto& stages = replica.stages;
  for (std::size_t j = 0; j < stages.size(); ++j) {
    const auto split = split_by(stages[j].devices, stages[j].speeds);
    double stage = stages[j].layers * split.decode_us;
    request += stages[j].layers * split.request_us;
    if (j + 1 == stages.size()) {
      stage += split.head_us;
      request += (1 + further_tokens()) * split.head_us;
    }
    decode += stage;
    bottleneck =
        std::max(bottleneck, goal.concurrency > 1 ? load_us(split, stages[j].layers,
                                                            j + 1 == stages.size(), stages.size()) /
                                                        (1 + further_tokens())
                                                  : stage);
    const int here = node_of_[stages[j].devices.front()];
    if (j + 1 < stages.size()) {
      const int next = node_of_[stages[j + 1].devices.front()];
      decode += decode_hop_us(here, next);
      request += request_hop_us(here, next);
    } else {
      const int back = node_of_[stages.front().devices.front()];
      decode += decode_return_us(here, back);
      request += request_return_us(here, back);
    }
  }
  replica.decode_us = decode;
  replica.bottleneck_us = bottleneck;
  replica.request_s = request * 1e-6;
}

} // namespace hexgen::scheduler
