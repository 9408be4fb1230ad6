#include "scheduler/serving_layout.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double alike = 0.03; // measurements of equal devices differ by about this much

bool within(double a, double b) {
  return std::abs(a - b) <= alike * std::max(a, b);
}

bool alike_devices(const serving_device& a, const serving_device& b) {
  return within(static_cast<double>(a.memory_bytes), static_cast<double>(b.memory_bytes)) &&
         within(a.decode_us_per_layer, b.decode_us_per_layer) &&
         within(a.prefill_us_per_token_layer, b.prefill_us_per_token_layer) &&
         within(a.head_us, b.head_us);
}

} // namespace

struct serving_layout::option {
  int node = 0;
  std::uint32_t code = 0;
  std::vector<int> take; // (class, count) flattened below
  std::vector<int> taken_classes;
  std::vector<std::size_t> devices; // representatives, leader first
  stage_split split;
  int cap_middle = 0, cap_first = 0, cap_last = 0, cap_only = 0;
};

serving_layout::serving_layout(const serving_costs& costs, std::vector<std::size_t> members)
    : costs_(costs) {
  // Most memory first, so that leaders, who hold the embedding, have the most room.
  std::sort(members.begin(), members.end(), [&](std::size_t a, std::size_t b) {
    if (costs.node_of(a) != costs.node_of(b))
      return costs.node_of(a) < costs.node_of(b);
    const auto& x = costs.devices[a];
    const auto& y = costs.devices[b];
    if (x.memory_bytes != y.memory_bytes)
      return x.memory_bytes > y.memory_bytes;
    return x.index != y.index ? x.index < y.index : a < b;
  });
  for (const auto member : members) {
    auto same = std::find_if(classes_.begin(), classes_.end(), [&](const device_class& other) {
      return other.node == costs.node_of(member) &&
             alike_devices(costs.devices[other.members.front()], costs.devices[member]);
    });
    if (same == classes_.end())
      classes_.push_back({costs.node_of(member), {member}});
    else
      same->members.push_back(member);
  }
  // Layouts are computed for the first members: let these have the least memory of their class.
  for (auto& kind : classes_)
    std::sort(kind.members.begin(), kind.members.end(), [&](std::size_t a, std::size_t b) {
      const auto& x = costs.devices[a];
      const auto& y = costs.devices[b];
      if (x.memory_bytes != y.memory_bytes)
        return x.memory_bytes < y.memory_bytes;
      return x.index != y.index ? x.index < y.index : a < b;
    });
  double codes = 1;
  for (const auto& kind : classes_) {
    radix_.push_back(codes_);
    codes *= static_cast<double>(kind.members.size() + 1);
    if (codes > 1e8)
      break; // work() says that this is too large
    codes_ = static_cast<std::uint32_t>(codes);
  }
}

double serving_layout::work() const {
  double codes = 1;
  for (const auto& kind : classes_)
    codes *= static_cast<double>(kind.members.size() + 1);
  double nodes = 0, options = 0;
  for (std::size_t i = 0; i < classes_.size();) {
    double sets = 1;
    const int node = classes_[i].node;
    for (; i < classes_.size() && classes_[i].node == node; ++i)
      sets *= static_cast<double>(classes_[i].members.size() + 1);
    options += sets - 1;
    nodes += 1;
  }
  return codes * nodes * nodes * 2 * costs_.model.layers * options;
}

std::vector<int> serving_layout::counts(std::uint32_t code) const {
  std::vector<int> found(classes_.size());
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    const auto base = static_cast<std::uint32_t>(classes_[i].members.size() + 1);
    found[i] = static_cast<int>(code % base);
    code /= base;
  }
  return found;
}

std::vector<serving_layout::option> serving_layout::make_options() const {
  std::vector<option> options;
  for (std::size_t begin = 0; begin < classes_.size();) {
    std::size_t end = begin;
    while (end < classes_.size() && classes_[end].node == classes_[begin].node)
      ++end;
    std::vector<int> take(end - begin, 0);
    for (;;) {
      std::size_t digit = 0;
      while (digit < take.size() &&
             take[digit] == static_cast<int>(classes_[begin + digit].members.size()))
        take[digit++] = 0;
      if (digit == take.size())
        break;
      ++take[digit];
      option made;
      made.node = classes_[begin].node;
      for (std::size_t i = 0; i < take.size(); ++i) {
        if (take[i] == 0)
          continue;
        made.code += radix_[begin + i] * static_cast<std::uint32_t>(take[i]);
        made.taken_classes.push_back(static_cast<int>(begin + i));
        made.take.push_back(take[i]);
        const auto& all = classes_[begin + i].members;
        made.devices.insert(made.devices.end(), all.begin(), all.begin() + take[i]);
      }
      for (auto& split : costs_.splits(made.devices)) {
        auto with_split = made;
        with_split.cap_middle = costs_.layer_cap(made.devices, split, false, false);
        with_split.cap_first = costs_.layer_cap(made.devices, split, true, false);
        with_split.cap_last = costs_.layer_cap(made.devices, split, false, true);
        with_split.cap_only = costs_.layer_cap(made.devices, split, true, true);
        with_split.split = std::move(split);
        if (with_split.cap_middle > 0)
          options.push_back(std::move(with_split));
      }
    }
    begin = end;
  }
  return options;
}

/// State: devices used × node of the last stage × layers placed × whether one stage already took
/// neither one layer nor as many as fit. Time is linear in layers, so some optimum has at most one
/// such stage: that keeps the number of transitions small without losing it.
struct serving_layout::search {
  struct state {
    double cost = infinity;
    std::int32_t previous = -1;
    std::int32_t chosen = -1;
  };
  struct final_step {
    double cost = infinity;
    std::int32_t previous = -1, chosen = -1;
    bool fresh = false;
  };

  const serving_layout& layout;
  const std::vector<option>& options;
  int layers, nodes;
  std::vector<std::vector<int>> class_counts; // per code
  std::vector<state> states;
  std::vector<final_step> best; // per code
  std::vector<serving_replica> replicas;

  [[nodiscard]] std::size_t at(std::uint32_t code, int node, int placed, int partial) const {
    return ((static_cast<std::size_t>(code) * static_cast<std::size_t>(nodes) +
             static_cast<std::size_t>(node)) *
                static_cast<std::size_t>(layers) +
            static_cast<std::size_t>(placed)) *
               2 +
           static_cast<std::size_t>(partial);
  }
  [[nodiscard]] int placed(std::size_t index) const {
    return static_cast<int>(index / 2 % static_cast<std::size_t>(layers));
  }
  void improve(std::size_t index, double cost, std::int32_t previous, std::int32_t chosen) {
    if (cost < states[index].cost)
      states[index] = {cost, previous, chosen};
  }
  void finish(std::uint32_t code, double cost, std::int32_t previous, std::int32_t chosen) {
    if (cost < best[code].cost)
      best[code] = {cost, previous, chosen, true};
  }
  [[nodiscard]] bool fits(const option& added, std::uint32_t code) const {
    const auto& used = class_counts[code];
    for (std::size_t i = 0; i < added.take.size(); ++i) {
      const auto kind = static_cast<std::size_t>(added.taken_classes[i]);
      if (used[kind] + added.take[i] > static_cast<int>(layout.classes_[kind].members.size()))
        return false;
    }
    return true;
  }

  /// One layer, as many as fit, or (once) any number between.
  template <class Step>
  void each_layer_count(int cap, int room, bool partial, Step&& step) const {
    cap = std::min(cap, layers); // never binding in a state: room < layers
    if (cap < 1 || room < 1)
      return;
    step(1, partial);
    if (cap <= room && cap > 1)
      step(cap, partial);
    if (!partial)
      for (int count = 2; count < cap && count <= room; ++count)
        step(count, true);
  }

  void run_from(int first_node);
  [[nodiscard]] serving_replica trace(const final_step& last) const;
};

void serving_layout::search::run_from(int first_node) {
  std::fill(states.begin(), states.end(), state{});
  const auto& costs = layout.costs_;
  const double tokens = 1 + costs.further_tokens();
  for (std::size_t i = 0; i < options.size(); ++i) {
    const auto& added = options[i];
    if (added.node != first_node)
      continue;
    const auto chosen = static_cast<std::int32_t>(i);
    if (added.cap_only >= layers)
      finish(added.code, layers * added.split.request_us + tokens * added.split.head_us, -1,
             chosen);
    each_layer_count(added.cap_first, layers - 1, false, [&](int count, bool partial) {
      improve(at(added.code, added.node, count, partial), count * added.split.request_us, -1,
              chosen);
    });
  }
  for (std::uint32_t code = 1; code < layout.codes_; ++code)
    for (int node = 0; node < nodes; ++node)
      for (int done = 1; done < layers; ++done)
        for (int partial = 0; partial < 2; ++partial) {
          const auto from = at(code, node, done, partial);
          const double cost = states[from].cost;
          if (cost == infinity)
            continue;
          for (std::size_t i = 0; i < options.size(); ++i) {
            const auto& added = options[i];
            const double hop = costs.request_hop_us(node, added.node);
            if (hop == infinity || !fits(added, code))
              continue;
            const auto chosen = static_cast<std::int32_t>(i);
            const auto previous = static_cast<std::int32_t>(from);
            const int room = layers - done;
            if (added.cap_last >= room)
              finish(code + added.code,
                     cost + hop + room * added.split.request_us + tokens * added.split.head_us +
                         costs.request_return_us(added.node, first_node),
                     previous, chosen);
            each_layer_count(added.cap_middle, room - 1, partial != 0, [&](int count, bool now) {
              improve(at(code + added.code, added.node, done + count, now),
                      cost + hop + count * added.split.request_us, previous, chosen);
            });
          }
        }
  for (std::size_t code = 0; code < best.size(); ++code)
    if (best[code].fresh) {
      replicas[code] = trace(best[code]);
      best[code].fresh = false;
    }
}

serving_replica serving_layout::search::trace(const final_step& last) const {
  std::vector<std::pair<const option*, int>> backwards;
  int end = layers;
  std::int32_t chosen = last.chosen, previous = last.previous;
  for (;;) {
    const int begin = previous < 0 ? 0 : placed(static_cast<std::size_t>(previous));
    backwards.emplace_back(&options[static_cast<std::size_t>(chosen)], end - begin);
    if (previous < 0)
      break;
    end = begin;
    chosen = states[static_cast<std::size_t>(previous)].chosen;
    previous = states[static_cast<std::size_t>(previous)].previous;
  }
  serving_replica replica;
  std::vector<std::size_t> next(layout.classes_.size(), 0);
  int first = 0;
  for (auto step = backwards.rbegin(); step != backwards.rend(); ++step) {
    serving_stage stage;
    stage.first_layer = first;
    stage.layers = step->second;
    first += step->second;
    const auto& used = *step->first;
    for (std::size_t i = 0; i < used.take.size(); ++i) {
      const auto kind = static_cast<std::size_t>(used.taken_classes[i]);
      for (int n = 0; n < used.take[i]; ++n)
        stage.devices.push_back(layout.classes_[kind].members[next[kind]++]);
    }
    stage.speeds = used.split.speeds;
    replica.stages.push_back(std::move(stage));
  }
  layout.costs_.price(replica);
  return replica;
}

std::vector<serving_layout::entry> serving_layout::solve() const {
  std::vector<entry> found;
  const auto options = make_options();
  if (options.empty())
    return found;
  search run{*this, options, costs_.model.layers, costs_.nodes(), {}, {}, {}, {}};
  for (std::uint32_t code = 0; code < codes_; ++code)
    run.class_counts.push_back(counts(code));
  run.states.resize(run.at(codes_ - 1, run.nodes - 1, run.layers - 1, 1) + 1);
  run.best.resize(codes_);
  run.replicas.resize(codes_);
  for (int node = 0; node < run.nodes; ++node)
    run.run_from(node);
  for (std::uint32_t code = 0; code < codes_; ++code)
    if (run.best[code].cost < infinity)
      found.push_back({code, std::move(run.replicas[code])});
  return found;
}

} // namespace hexgen::scheduler
