#include "scheduler/upper_bound.hpp"

#include "scheduler/layer_fill.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double most_group_pairs = 3e6;

/// One degree of a kind: what one device of such a stage gives at most.
struct degree_cost {
  int degree = 1;
  double mean = 0;             // device seconds a layer of the mean request
  std::vector<double> by_kind; // and of each kind of request
  double layers = 0;           // that fit, per device
};

using kind_table = std::map<int, std::vector<degree_cost>>; // by device kind

kind_table price_kinds(const cost_model& costs, const std::vector<config::request_kind>& kinds) {
  kind_table table;
  for (const auto& machine : costs.devices().machines()) {
    auto& row = table[machine.kind];
    for (const int degree : costs.degrees()) {
      if (degree > static_cast<int>(machine.devices.size()) ||
          (!row.empty() && row.back().degree >= degree))
        continue;
      const std::vector<int> devices(machine.devices.begin(), machine.devices.begin() + degree);
      degree_cost made;
      made.degree = degree;
      for (const auto& kind : kinds) {
        made.by_kind.push_back(
            degree * costs.least_busy(devices, 1, kind.prompt_tokens, kind.output_tokens));
        made.mean += kind.share * made.by_kind.back();
      }
      made.layers = static_cast<double>(costs.layer_cap(machine.kind, degree, {})) / degree;
      if (made.layers > 0 && std::isfinite(made.mean))
        row.push_back(std::move(made));
    }
  }
  return table;
}

/// Nodes that can reach each other through links, any number of hops: more than a pipeline needs.
std::vector<int> components(const pool& pool) {
  std::vector<int> parent(static_cast<std::size_t>(pool.nodes()));
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](int node) {
    while (parent[static_cast<std::size_t>(node)] != node)
      node = parent[static_cast<std::size_t>(node)] =
          parent[static_cast<std::size_t>(parent[static_cast<std::size_t>(node)])];
    return node;
  };
  // Links depend on the regions alone, so two nodes of each stand for all others.
  std::vector<std::vector<int>> members(static_cast<std::size_t>(pool.regions()));
  for (int node = 0; node < pool.nodes(); ++node)
    members[static_cast<std::size_t>(pool.region_of_node(node))].push_back(node);
  const auto join = [&](int a, int b) { parent[static_cast<std::size_t>(root(a))] = root(b); };
  for (std::size_t a = 0; a < members.size(); ++a)
    for (std::size_t b = a; b < members.size(); ++b) {
      if (a == b && members[a].size() < 2)
        continue;
      const int other = a == b ? members[a][1] : members[b].front();
      if (!pool.between_nodes(members[a].front(), other).usable())
        continue;
      for (const int node : members[a])
        join(node, other);
      for (const int node : members[b])
        join(node, other);
    }
  for (int node = 0; node < pool.nodes(); ++node)
    parent[static_cast<std::size_t>(node)] = root(node);
  return parent;
}

/// Largest R with R × layers <= sum over devices of min(held layers × R, speed): the sum is
/// concave in R, so bisection finds where it falls below the line.
template <class Given>
double largest_flow(double layers, double high, Given&& given) {
  if (given(high * 1e-9) < high * 1e-9 * layers * (1 - 1e-12))
    return 0; // all devices together cannot hold the model
  double low = 0;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (given(middle) >= middle * layers * (1 - 1e-12) ? low : high) = middle;
  }
  return high;
}

struct priced_device_kind {
  std::vector<std::pair<double, double>> options; // (layers held, priced layers per second)
  [[nodiscard]] double give(double rate) const {
    double most = 0;
    for (const auto& [held, speed] : options)
      most = std::max(most, std::min(held * rate, speed));
    return most;
  }
};

/// The relaxation at given prices (their mean over the shares is one).
double relaxed(const cost_model& costs, const kind_table& table, const std::vector<int>& of,
               const std::vector<double>& prices) {
  std::map<int, std::map<int, double>> devices; // component -> kind -> count
  for (const auto& machine : costs.devices().machines())
    devices[of[static_cast<std::size_t>(machine.node)]][machine.kind] +=
        static_cast<double>(machine.devices.size());
  std::map<int, priced_device_kind> priced;
  for (const auto& [kind, row] : table)
    for (const auto& cost : row) {
      double speed = 0;
      for (std::size_t k = 0; k < prices.size(); ++k)
        speed = std::max(speed, prices[k] / cost.by_kind[k]);
      priced[kind].options.emplace_back(cost.layers, speed);
    }
  double total = 0;
  for (const auto& component : devices) {
    const auto& kinds = component.second;
    double high = 0;
    for (const auto& [kind, count] : kinds)
      for (const auto& option : priced[kind].options)
        high += count * option.second;
    if (high > 0)
      total += largest_flow(costs.model().layers, high / costs.model().layers, [&](double rate) {
        double sum = 0;
        for (const auto& [kind, count] : kinds)
          sum += count * priced[kind].give(rate);
        return sum;
      });
  }
  return total;
}

/// Prices proportional to what a kind of request costs on the average device: at the optimum of
/// the dual they are near that. The mean over the shares is made one.
std::vector<double> price_requests(const cost_model& costs, const kind_table& table,
                                   const std::vector<config::request_kind>& kinds) {
  std::vector<double> prices(kinds.size(), 0);
  for (const auto& machine : costs.devices().machines()) {
    const degree_cost* best = nullptr;
    if (const auto row = table.find(machine.kind); row != table.end())
      for (const auto& cost : row->second)
        if (best == nullptr || cost.mean < best->mean)
          best = &cost;
    if (best != nullptr)
      for (std::size_t k = 0; k < kinds.size(); ++k)
        prices[k] += static_cast<double>(machine.devices.size()) / best->mean *
                     (best->by_kind[k] / best->mean);
  }
  double mean = 0;
  for (std::size_t k = 0; k < kinds.size(); ++k)
    mean += kinds[k].share * prices[k];
  for (auto& price : prices)
    price = mean > 0 ? price / mean : 1;
  return prices;
}

/// A few rounds of coordinate steps: any prices are valid, better ones are tighter.
double tighten(const cost_model& costs, const kind_table& table, const std::vector<int>& of,
               const std::vector<config::request_kind>& kinds, std::vector<double>& prices) {
  double bound = relaxed(costs, table, of, prices);
  if (kinds.size() > 32)
    return bound;
  for (double step : {0.03, 0.01, 0.003})
    for (std::size_t k = 0; k < kinds.size(); ++k)
      for (const double factor : {1 + step, 1 / (1 + step)}) {
        auto attempt = prices;
        attempt[k] *= factor;
        double mean = 0;
        for (std::size_t i = 0; i < kinds.size(); ++i)
          mean += kinds[i].share * attempt[i];
        for (auto& price : attempt)
          price /= mean;
        if (const double found = relaxed(costs, table, of, attempt); found < bound) {
          bound = found;
          prices = attempt;
        }
      }
  return bound;
}

/// Small pools: the best sum over disjoint groups of each group's own limit, with whole layers.
class group_bound {
public:
  group_bound(const cost_model& costs, const kind_table& table, const std::vector<double>& prices)
      : costs_(costs), table_(table), prices_(prices), of_(components(costs.devices())) {}

  [[nodiscard]] bool affordable() const {
    double pairs = 1;
    for (const auto& machine : costs_.devices().machines()) {
      const auto n = static_cast<double>(machine.devices.size());
      pairs *= (n + 1) * (n + 2) / 2;
    }
    return pairs <= most_group_pairs;
  }

  double run() {
    std::vector<std::size_t> radix;
    std::size_t codes = 1;
    for (const auto& machine : costs_.devices().machines()) {
      radix.push_back(codes);
      codes *= machine.devices.size() + 1;
    }
    std::vector<double> alone(codes, 0), best(codes, 0);
    std::vector<std::vector<int>> counts(codes);
    for (std::size_t code = 1; code < codes; ++code) {
      auto rest = code;
      for (const auto& machine : costs_.devices().machines()) {
        counts[code].push_back(static_cast<int>(rest % (machine.devices.size() + 1)));
        rest /= machine.devices.size() + 1;
      }
      alone[code] = one_pipeline(counts[code]);
    }
    for (std::size_t code = 1; code < codes; ++code) {
      // Walk the sub-vectors of `code` as an odometer.
      std::vector<int> sub(radix.size(), 0);
      std::size_t value = 0;
      for (;;) {
        std::size_t digit = 0;
        while (digit < sub.size() && sub[digit] == counts[code][digit]) {
          value -= radix[digit] * static_cast<std::size_t>(sub[digit]);
          sub[digit++] = 0;
        }
        if (digit == sub.size())
          break;
        ++sub[digit];
        value += radix[digit];
        if (alone[value] > 0)
          best[code] = std::max(best[code], alone[value] + best[code - value]);
      }
    }
    return codes > 1 ? best[codes - 1] : 0;
  }

private:
  /// One pipeline over the devices: a rate r needs, on every machine, stages whose whole layers
  /// times seconds fit in 1/r. The best mix of degrees per machine, by dynamic programming.
  double one_pipeline(const std::vector<int>& counts) const {
    int component = -1;
    double high = 0;
    for (std::size_t m = 0; m < counts.size(); ++m) {
      if (counts[m] == 0)
        continue;
      const auto& machine = costs_.devices().machines()[m];
      const int here = of_[static_cast<std::size_t>(machine.node)];
      if (component >= 0 && here != component)
        return 0;
      component = here;
      if (const auto row = table_.find(machine.kind); row != table_.end())
        for (const auto& cost : row->second)
          high = std::max(high, 1 / fastest(cost));
    }
    if (high == 0)
      return 0;
    if (held(counts, high * 1e-9) < costs_.model().layers)
      return 0;
    double low = 0;
    for (int i = 0; i < 50; ++i) {
      const double middle = (low + high) / 2;
      (held(counts, middle) >= costs_.model().layers ? low : high) = middle;
    }
    return high;
  }

  /// Seconds a layer of a stage for the request mix that suits it best at the prices.
  [[nodiscard]] double fastest(const degree_cost& cost) const {
    double least = infinity;
    for (std::size_t k = 0; k < prices_.size(); ++k)
      if (prices_[k] > 0)
        least = std::min(least, cost.by_kind[k] / prices_[k]);
    return least / cost.degree;
  }

  [[nodiscard]] double held(const std::vector<int>& counts, double rate) const {
    double layers = 0;
    for (std::size_t m = 0; m < counts.size(); ++m) {
      if (counts[m] == 0)
        continue;
      const auto row = table_.find(costs_.devices().machines()[m].kind);
      if (row == table_.end())
        continue;
      std::vector<double> most(static_cast<std::size_t>(counts[m]) + 1, 0);
      for (std::size_t used = 1; used < most.size(); ++used) {
        most[used] = most[used - 1];
        for (const auto& cost : row->second) {
          const auto degree = static_cast<std::size_t>(cost.degree);
          if (degree > used)
            continue;
          const double count = std::min(cost.layers * cost.degree,
                                        std::floor(1 / (rate * fastest(cost)) * (1 + 1e-9)));
          most[used] = std::max(most[used], most[used - degree] + count);
        }
      }
      layers += most.back();
    }
    return layers;
  }

  const cost_model& costs_;
  const kind_table& table_;
  const std::vector<double>& prices_;
  std::vector<int> of_;
};

} // namespace

double throughput_bound(const cost_model& costs, const std::vector<config::request_kind>& kinds) {
  const auto table = price_kinds(costs, kinds);
  auto prices = price_requests(costs, table, kinds);
  double bound = tighten(costs, table, components(costs.devices()), kinds, prices);
  group_bound small(costs, table, prices);
  if (small.affordable())
    bound = std::min(bound, small.run());
  return bound;
}

} // namespace hexgen::scheduler
