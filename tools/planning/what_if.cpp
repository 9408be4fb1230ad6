#include "tools/planning/what_if.hpp"

#include "scheduler/upper_bound.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>

namespace hexgen::tools {

namespace {

constexpr int most_added = 65'536;

int whole(const std::string& text, const std::string& change) {
  int value = 0;
  const auto* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stopped != end || value < 1 || value > most_added)
    throw std::invalid_argument("--what-if " + change + ": '" + text + "' is no device count");
  return value;
}

void add(config::cluster& cluster, const std::string& rest, const std::string& change) {
  const auto at = rest.find('@');
  if (at == std::string::npos)
    throw std::invalid_argument("--what-if " + change + ": expected add:KIND×N@NODE");
  const auto what = rest.substr(0, at);
  auto node_name = rest.substr(at + 1);
  std::string region;
  if (const auto second = node_name.find('@'); second != std::string::npos) {
    region = node_name.substr(second + 1);
    node_name.resize(second);
  }
  // The last × or x that a count follows: kinds such as h100-sxm hold an x themselves.
  const std::string times = "×";
  std::string kind, number;
  if (const auto cross = what.rfind(times); cross != std::string::npos) {
    kind = what.substr(0, cross);
    number = what.substr(cross + times.size());
  } else if (const auto letter = what.rfind('x'); letter != std::string::npos) {
    kind = what.substr(0, letter);
    number = what.substr(letter + 1);
  } else {
    kind = what;
    number = "1";
  }
  const int count = whole(number, change);
  if (!cluster.kinds.contains(kind))
    throw std::invalid_argument("--what-if " + change + ": unknown device kind '" + kind + "'");
  if (node_name.empty() || node_name.find('/') != std::string::npos)
    throw std::invalid_argument("--what-if " + change + ": a node needs a name without '/'");
  if (cluster.device_count() + count > most_added)
    throw std::invalid_argument("--what-if " + change + ": more than 65536 devices");
  for (auto& node : cluster.nodes)
    if (node.name == node_name) {
      node.devices.push_back({kind, count});
      return;
    }
  config::cluster_node node;
  node.name = node_name;
  node.region = !region.empty()         ? region
                : cluster.nodes.empty() ? std::string("default")
                                        : cluster.nodes.front().region;
  node.devices.push_back({kind, count});
  cluster.nodes.push_back(std::move(node));
}

void remove(config::cluster& cluster, const std::string& rest, const std::string& change) {
  const auto slash = rest.find('/');
  const auto name = rest.substr(0, slash);
  const auto found =
      std::find_if(cluster.nodes.begin(), cluster.nodes.end(),
                   [&](const config::cluster_node& node) { return node.name == name; });
  if (found == cluster.nodes.end())
    throw std::invalid_argument("--what-if " + change + ": no node '" + name + "'");
  if (slash == std::string::npos) {
    cluster.nodes.erase(found);
    return;
  }
  int left = whole(rest.substr(slash + 1), change);
  while (left > 0 && !found->devices.empty()) {
    auto& group = found->devices.back();
    const int taken = std::min(left, group.count);
    group.count -= taken;
    left -= taken;
    if (group.count == 0)
      found->devices.pop_back();
  }
  if (left > 0)
    throw std::invalid_argument("--what-if " + change + ": the node has fewer devices");
}

double bound_of(const input_flags& flags, const config::cluster& cluster) {
  const auto inputs = load_inputs(flags, cluster);
  return scheduler::throughput_bound(*inputs->costs, inputs->workload.kinds);
}

double node_price(const config::cluster& cluster, const config::cluster_node& node) {
  auto one = cluster;
  one.nodes = {node};
  return one.price_per_hour();
}

} // namespace

void apply_what_if(config::cluster& cluster, const std::string& change) {
  if (change.rfind("add:", 0) == 0)
    add(cluster, change.substr(4), change);
  else if (change.rfind("remove:", 0) == 0)
    remove(cluster, change.substr(7), change);
  else
    throw std::invalid_argument("--what-if " + change + ": must begin with add: or remove:");
}

/// Greedy by bound gained per dollar, then exchanges of one node for another while they help. The
/// bound stands for the plan: it is within a few per cent of what searches reach and costs
/// microseconds.
config::cluster rent_within(const input_flags& flags, const config::cluster& offers,
                            double budget) {
  auto chosen = offers;
  chosen.nodes.clear();
  chosen.name = offers.name + "-within-budget";
  std::vector<bool> taken(offers.nodes.size(), false);
  std::vector<double> prices;
  for (const auto& node : offers.nodes)
    prices.push_back(node_price(offers, node));
  // What a node adds is its speed: the bound of its kind of device in a pool large enough.
  std::vector<double> worth;
  for (const auto& node : offers.nodes) {
    auto many = offers;
    many.nodes.clear();
    for (int i = 0; i < 24; ++i) {
      many.nodes.push_back(node);
      many.nodes.back().name.append("#").append(std::to_string(i));
    }
    worth.push_back(bound_of(flags, many));
  }
  std::vector<std::size_t> order(offers.nodes.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return worth[a] * std::max(prices[b], 1e-9) > worth[b] * std::max(prices[a], 1e-9);
  });
  double left = budget;
  const auto assemble = [&] {
    auto made = chosen;
    for (std::size_t i = 0; i < taken.size(); ++i)
      if (taken[i])
        made.nodes.push_back(offers.nodes[i]);
    return made;
  };
  for (const auto i : order)
    if (prices[i] <= left) {
      taken[i] = true;
      left -= prices[i];
    }
  if (std::none_of(taken.begin(), taken.end(), [](bool t) { return t; }))
    throw std::invalid_argument("--budget: no offer costs so little");
  double best = bound_of(flags, assemble());
  for (bool better = true; better;) {
    better = false;
    for (std::size_t out = 0; out < taken.size() && !better; ++out)
      for (std::size_t in = 0; in < taken.size() && !better; ++in) {
        if (!taken[out] || taken[in] || prices[in] > left + prices[out])
          continue;
        taken[out] = false;
        taken[in] = true;
        const double reached = bound_of(flags, assemble());
        if (reached > best * (1 + 1e-9)) {
          best = reached;
          left += prices[out] - prices[in];
          better = true;
        } else {
          taken[out] = true;
          taken[in] = false;
        }
      }
  }
  return assemble();
}

} // namespace hexgen::tools
