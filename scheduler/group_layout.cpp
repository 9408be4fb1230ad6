#include "scheduler/group_layout.hpp"

#include "scheduler/layer_fill.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Ways to cut `count` devices into stages of legal degree, largest degree first.
void partitions(int count, const std::vector<int>& degrees, std::size_t largest,
                std::vector<int>& now, std::vector<std::vector<int>>& found) {
  if (count == 0) {
    found.push_back(now);
    return;
  }
  for (std::size_t i = largest + 1; i-- > 0;) {
    if (degrees[i] > count)
      continue;
    now.push_back(degrees[i]);
    partitions(count - degrees[i], degrees, i, now, found);
    now.pop_back();
  }
}

/// The first, the last and some between: few stages, many stages, and a mix.
void thin(std::vector<std::vector<int>>& all, std::size_t keep) {
  if (all.size() <= keep)
    return;
  std::vector<std::vector<int>> kept;
  for (std::size_t i = 0; i < keep; ++i)
    kept.push_back(all[i * (all.size() - 1) / (keep - 1)]);
  all = std::move(kept);
}

} // namespace

layout_book::layout_book(const cost_model& costs, const std::vector<config::request_kind>& kinds,
                         const layout_setting& setting)
    : costs_(costs), kinds_(kinds), setting_(setting) {
  const auto& pool = costs.devices();
  const auto& degrees = costs.degrees();
  units_.resize(static_cast<std::size_t>(pool.kinds()));
  room_.assign(units_.size(), 0);
  for (const auto& machine : pool.machines()) {
    auto& row = units_[static_cast<std::size_t>(machine.kind)];
    for (std::size_t d = row.size(); d < degrees.size(); ++d) {
      if (degrees[d] > static_cast<int>(machine.devices.size()))
        break;
      const std::vector<int> devices(machine.devices.begin(), machine.devices.begin() + degrees[d]);
      unit made;
      for (const auto& kind : kinds_) {
        const auto seconds = [&](stage_position where) {
          const auto cost = costs.stage(devices, 1, where, kind.prompt_tokens, kind.output_tokens);
          return cost.compute_s + cost.tensor_parallel_s;
        };
        made.kind_per_layer.push_back(seconds({}));
        made.kind_as_last.push_back(seconds({false, true}) - made.kind_per_layer.back());
        made.per_layer += kind.share * made.kind_per_layer.back();
        made.as_last += kind.share * made.kind_as_last.back();
        const auto busy = [&](stage_position where) {
          return costs.busy(devices, 1, where, kind.prompt_tokens, kind.output_tokens);
        };
        made.kind_busy.push_back(busy({}));
        made.kind_busy_as_last.push_back(busy({false, true}) - made.kind_busy.back());
        made.busy_per_layer += kind.share * made.kind_busy.back();
        made.busy_as_last += kind.share * made.kind_busy_as_last.back();
      }
      made.cap_middle = costs.layer_cap(machine.kind, degrees[d], {});
      made.cap_first = costs.layer_cap(machine.kind, degrees[d], {true, false});
      made.cap_last = costs.layer_cap(machine.kind, degrees[d], {false, true});
      made.cap_only = costs.layer_cap(machine.kind, degrees[d], {true, true});
      auto& room = room_[static_cast<std::size_t>(machine.kind)];
      room = std::max(room, static_cast<double>(made.cap_middle) / degrees[d]);
      row.push_back(std::move(made));
    }
  }
}

const layout_book::unit& layout_book::unit_of(int kind, int degree) const {
  const auto& degrees = costs_.degrees();
  const auto at = std::find(degrees.begin(), degrees.end(), degree) - degrees.begin();
  return units_[static_cast<std::size_t>(kind)][static_cast<std::size_t>(at)];
}

double layout_book::layer_room(const device_group& group) const {
  double layers = 0;
  for (const auto& part : group) {
    const auto& machine = costs_.devices().machines()[static_cast<std::size_t>(part.machine)];
    layers += part.count * room_[static_cast<std::size_t>(machine.kind)];
  }
  return layers;
}

double layout_book::kind_hop(int machine, int other, std::size_t kind) const {
  const auto& all = costs_.devices().machines();
  const std::vector<int> from{all[static_cast<std::size_t>(machine)].devices.front()};
  const std::vector<int> to{all[static_cast<std::size_t>(other)].devices.back()};
  return costs_.hop(from, to, kinds_[kind].prompt_tokens, kinds_[kind].output_tokens);
}

double layout_book::mean_hop(int machine, int other) const {
  double mean = 0;
  for (std::size_t k = 0; k < kinds_.size(); ++k)
    mean += kinds_[k].share * kind_hop(machine, other, k);
  return mean;
}

/// The parts in the order of the cheapest path through all machines: all orders of up to six,
/// nearest neighbours from the best start beyond.
std::vector<int> layout_book::chain(const device_group& group) const {
  const auto count = group.size();
  std::vector<double> hop(count * count, 0);
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t j = 0; j < count; ++j)
      if (i != j)
        hop[i * count + j] = mean_hop(group[i].machine, group[j].machine);
  std::vector<int> order(count), best;
  std::iota(order.begin(), order.end(), 0);
  double least = infinity;
  const auto length = [&](const std::vector<int>& path) {
    double sum = 0;
    for (std::size_t i = 1; i < path.size(); ++i)
      sum += hop[static_cast<std::size_t>(path[i - 1]) * count + static_cast<std::size_t>(path[i])];
    return sum;
  };
  const auto attempt = [&](const std::vector<int>& path) {
    const double sum = length(path);
    if (best.empty() || sum < least * (1 - 1e-12)) {
      least = sum;
      best = path;
    }
  };
  if (count <= 6) {
    do
      attempt(order);
    while (std::next_permutation(order.begin(), order.end()));
    return best;
  }
  for (std::size_t start = 0; start < count; ++start) {
    std::vector<int> path{static_cast<int>(start)};
    std::vector<bool> used(count, false);
    used[start] = true;
    while (path.size() < count) {
      const auto from = static_cast<std::size_t>(path.back());
      std::size_t next = count;
      for (std::size_t j = 0; j < count; ++j)
        if (!used[j] && (next == count || hop[from * count + j] < hop[from * count + next]))
          next = j;
      used[next] = true;
      path.push_back(static_cast<int>(next));
    }
    attempt(path);
  }
  return best;
}

/// Tries mixes of degrees for one chained group and keeps what is not worse in both respects.
class layout_book::builder {
public:
  builder(const layout_book& book, const device_group& group) : book_(book), group_(group) {
    const auto& pool = book.costs_.devices();
    order_ = book.chain(group);
    std::size_t mixes = 1;
    for (const int slot : order_) {
      const auto& part = group[static_cast<std::size_t>(slot)];
      std::vector<std::vector<int>> cuts;
      std::vector<int> now;
      if (book.setting_.rule == layout_rule::even) {
        for (const int degree : book.costs_.degrees())
          if (degree <= part.count)
            cuts.emplace_back(static_cast<std::size_t>(part.count / degree), degree);
      } else {
        partitions(part.count, book.costs_.degrees(), book.costs_.degrees().size() - 1, now, cuts);
      }
      mixes *= cuts.size();
      cuts_.push_back(std::move(cuts));
      kinds_.push_back(pool.machines()[static_cast<std::size_t>(part.machine)].kind);
    }
    if (mixes > book.setting_.most_mixes && book.setting_.rule == layout_rule::free) {
      const double each = std::pow(static_cast<double>(book.setting_.most_mixes),
                                   1.0 / static_cast<double>(cuts_.size()));
      for (auto& cuts : cuts_)
        thin(cuts, std::max<std::size_t>(2, static_cast<std::size_t>(each)));
    }
    for (std::size_t i = 0; i + 1 < order_.size(); ++i)
      hops_.push_back(machine(order_[i]) == machine(order_[i + 1])
                          ? 0
                          : book.mean_hop(machine(order_[i]), machine(order_[i + 1])));
    for (const int slot : order_)
      inside_.push_back(book.mean_hop(machine(slot), machine(slot)));
  }

  std::vector<group_layout> run() {
    std::vector<std::size_t> pick(cuts_.size(), 0);
    for (std::size_t tried = 0; tried < 20 * book_.setting_.most_mixes; ++tried) {
      attempt(pick);
      std::size_t digit = 0;
      while (digit < pick.size() && ++pick[digit] == cuts_[digit].size())
        pick[digit++] = 0;
      if (digit == pick.size())
        break;
    }
    return finish();
  }

private:
  [[nodiscard]] int machine(int slot) const {
    return group_[static_cast<std::size_t>(slot)].machine;
  }

  void attempt(const std::vector<std::size_t>& pick) {
    stages_.clear();
    fill_.clear();
    int degree = 0;
    for (std::size_t i = 0; i < pick.size(); ++i)
      for (const int cut : cuts_[i][pick[i]]) {
        const auto& what = book_.unit_of(kinds_[i], cut);
        stages_.push_back({static_cast<int>(i), cut, &what});
        fill_.push_back({what.per_layer, what.busy_per_layer, std::min(what.cap_middle, layers())});
        if (degree != 0 && degree != cut && book_.setting_.rule == layout_rule::even)
          return;
        degree = cut;
      }
    if (book_.setting_.rule == layout_rule::even) {
      attempt_even();
      return;
    }
    limit_ends();
    order_stages(fill_, by_speed_);
    const double least = smallest_bottleneck(fill_, layers());
    if (least == infinity)
      return;
    double most = infinity;
    if (const double reached = split(most); reached < infinity)
      most = reached;
    split(least);
    if (book_.setting_.every_cap) {
      for (const auto& stage : fill_)
        for (int count = 1; count <= stage.cap; ++count)
          if (const double bound = count * stage.busy_per_layer; bound > least && bound < most)
            split(bound);
    } else {
      for (const double part : {1.0 / 3, 2.0 / 3})
        if (most > least * 1.001)
          split(least * std::pow(most / least, part));
    }
  }

  /// The ends hold embedding and head. Which stages end up at the ends is known only after the
  /// fill; to be safe the outermost ones are limited, and split() checks what came out.
  void limit_ends() {
    if (fill_.size() == 1) {
      fill_[0].cap = std::min(fill_[0].cap, stages_[0].what->cap_only);
      return;
    }
    fill_.front().cap = std::min(fill_.front().cap, stages_.front().what->cap_first);
    fill_.back().cap = std::min(fill_.back().cap, stages_.back().what->cap_last);
  }

  /// Layers in proportion one to all: only with one degree everywhere.
  void attempt_even() {
    const auto count = static_cast<int>(stages_.size());
    for (int used = std::min(count, layers()); used >= 1; --used) {
      if (used != count)
        break; // a symmetric pipeline uses all its stages
      counts_.assign(stages_.size(), layers() / used);
      for (int j = 0; j < layers() % used; ++j)
        ++counts_[static_cast<std::size_t>(j)];
      keep_counts();
    }
  }

  /// Returns the slowest stage's time, infinite when the ends do not fit.
  double split(double bound) {
    if (!fill_layers(fill_, by_speed_, layers(), bound, counts_))
      return infinity;
    return keep_counts();
  }

  double keep_counts() {
    double latency = 0, bottleneck = 0;
    std::ptrdiff_t before = -1;
    std::size_t first = stages_.size(), last = 0, used = 0;
    for (std::size_t j = 0; j < stages_.size(); ++j)
      if (counts_[j] > 0) {
        first = std::min(first, j);
        last = j;
        ++used;
      }
    if (used > book_.setting_.most_stages)
      return infinity;
    for (std::size_t j = first; j <= last; ++j) {
      if (counts_[j] == 0)
        continue;
      const auto& what = *stages_[j].what;
      const bool is_first = j == first, is_last = j == last;
      const int cap = is_first ? (is_last ? what.cap_only : what.cap_first)
                               : (is_last ? what.cap_last : what.cap_middle);
      if (counts_[j] > cap)
        return infinity;
      const double here = counts_[j] * what.per_layer + (is_last ? what.as_last : 0);
      if (before >= 0)
        latency += hop(stages_[static_cast<std::size_t>(before)].slot, stages_[j].slot);
      before = static_cast<std::ptrdiff_t>(j);
      latency += here;
      bottleneck = std::max(bottleneck,
                            counts_[j] * what.busy_per_layer + (is_last ? what.busy_as_last : 0));
    }
    if (stages_[first].slot != stages_[last].slot)
      latency += way_back(stages_[last].slot, stages_[first].slot);
    if (latency < infinity)
      insert(latency, bottleneck);
    return bottleneck;
  }

  /// Positions in the chain; machines between that got no layers are passed over.
  [[nodiscard]] double hop(int from, int to) const {
    if (from == to)
      return inside_[static_cast<std::size_t>(from)];
    if (to == from + 1)
      return hops_[static_cast<std::size_t>(from)];
    return book_.mean_hop(machine(order_[static_cast<std::size_t>(from)]),
                          machine(order_[static_cast<std::size_t>(to)]));
  }

  [[nodiscard]] double way_back(int from, int to) const {
    const auto& all = book_.costs_.devices().machines();
    const auto device = [&](int position) {
      const int place = machine(order_[static_cast<std::size_t>(position)]);
      return std::vector<int>{all[static_cast<std::size_t>(place)].devices.front()};
    };
    double mean = 0;
    for (const auto& kind : book_.kinds_)
      mean += kind.share * book_.costs_.way_back(device(from), device(to), kind.output_tokens);
    return mean;
  }

  void insert(double latency, double bottleneck) {
    for (const auto& known : front_)
      if (known.latency_s <= latency * (1 + 1e-9) && known.bottleneck_s <= bottleneck * (1 + 1e-9))
        return;
    std::erase_if(front_, [&](const group_layout& known) {
      return latency <= known.latency_s && bottleneck <= known.bottleneck_s;
    });
    group_layout made;
    made.latency_s = latency;
    made.bottleneck_s = bottleneck;
    for (std::size_t j = 0; j < stages_.size(); ++j)
      if (counts_[j] > 0)
        made.stages.push_back(
            {order_[static_cast<std::size_t>(stages_[j].slot)], stages_[j].degree, counts_[j]});
    front_.push_back(std::move(made));
  }

  /// Both ends and as many between as asked for, evenly over the logarithm of the bottleneck.
  std::vector<group_layout> finish() {
    std::sort(front_.begin(), front_.end(), [](const group_layout& a, const group_layout& b) {
      return a.latency_s < b.latency_s;
    });
    const auto keep = book_.setting_.keep;
    if (front_.size() > keep) {
      std::vector<group_layout> kept;
      const double top = std::log(front_.front().bottleneck_s);
      const double step =
          (top - std::log(front_.back().bottleneck_s)) / static_cast<double>(keep - 1);
      std::size_t wanted = 0;
      for (std::size_t i = 0; i < front_.size(); ++i) {
        const bool end = i + 1 == front_.size();
        if (end ||
            std::log(front_[i].bottleneck_s) <= top - step * static_cast<double>(wanted) + 1e-12) {
          kept.push_back(std::move(front_[i]));
          if (++wanted == keep && !end) {
            kept.back() = std::move(front_.back());
            break;
          }
        }
      }
      front_ = std::move(kept);
    }
    for (auto& layout : front_)
      book_.fill_service(group_, layout);
    return std::move(front_);
  }

  [[nodiscard]] int layers() const { return book_.costs_.model().layers; }

  const layout_book& book_;
  const device_group& group_;
  std::vector<int> order_; // position in the chain -> slot
  std::vector<std::vector<std::vector<int>>> cuts_;
  std::vector<int> kinds_;
  std::vector<double> hops_, inside_;
  std::vector<placed> stages_;
  std::vector<fill_stage> fill_;
  std::vector<int> by_speed_, counts_;
  std::vector<group_layout> front_;
};

std::vector<group_layout> layout_book::compute(const device_group& group) const {
  if (group.empty() || layer_room(group) < costs_.model().layers)
    return {};
  return builder(*this, group).run();
}

void layout_book::fill_service(const device_group& group, group_layout& layout) const {
  const auto& machines = costs_.devices().machines();
  for (std::size_t k = 0; k < kinds_.size(); ++k) {
    double latency = 0, most = 0;
    for (std::size_t j = 0; j < layout.stages.size(); ++j) {
      const auto& stage = layout.stages[j];
      const int here = group[static_cast<std::size_t>(stage.slot)].machine;
      const auto& what = unit_of(machines[static_cast<std::size_t>(here)].kind, stage.degree);
      const bool last = j + 1 == layout.stages.size();
      const double time = stage.layers * what.kind_per_layer[k] + (last ? what.kind_as_last[k] : 0);
      latency += time;
      most =
          std::max(most, stage.layers * what.kind_busy[k] + (last ? what.kind_busy_as_last[k] : 0));
      const auto next = last ? layout.stages.front().slot : layout.stages[j + 1].slot;
      const int there = group[static_cast<std::size_t>(next)].machine;
      if (!last)
        latency += kind_hop(here, there, k);
      else if (here != there)
        latency += costs_.way_back({machines[static_cast<std::size_t>(here)].devices.front()},
                                   {machines[static_cast<std::size_t>(there)].devices.front()},
                                   kinds_[k].output_tokens);
    }
    layout.service.latency.push_back(static_cast<float>(latency));
    layout.service.occupancy.push_back(
        static_cast<float>(setting_.mode == occupancy::whole_request ? latency : most));
  }
}

layout_book::answer layout_book::layouts(const device_group& group) {
  const auto& pool = costs_.devices();
  const auto describe = [&](int slot) {
    const auto& part = group[static_cast<std::size_t>(slot)];
    const auto& machine = pool.machines()[static_cast<std::size_t>(part.machine)];
    return std::tuple(pool.region_of_node(machine.node), machine.kind, part.count, machine.node);
  };
  // Regions differ only in the links between them: inside one, which it is does not matter.
  bool one_region = true;
  for (const auto& part : group)
    one_region =
        one_region &&
        pool.region_of_node(pool.machines()[static_cast<std::size_t>(part.machine)].node) ==
            pool.region_of_node(
                pool.machines()[static_cast<std::size_t>(group.front().machine)].node);
  answer found;
  found.slots.resize(group.size());
  std::iota(found.slots.begin(), found.slots.end(), 0);
  std::sort(found.slots.begin(), found.slots.end(),
            [&](int a, int b) { return describe(a) < describe(b); });
  std::vector<int> key;
  for (std::size_t i = 0; i < found.slots.size(); ++i) {
    const auto [region, kind, count, node] = describe(found.slots[i]);
    int same_node = static_cast<int>(i);
    for (std::size_t j = 0; j < i; ++j)
      if (std::get<3>(describe(found.slots[j])) == node) {
        same_node = static_cast<int>(j);
        break;
      }
    key.insert(key.end(), {one_region ? -1 : region, kind, count, same_node});
  }
  auto& known = known_[key];
  if (!known) {
    device_group sorted;
    for (const int slot : found.slots)
      sorted.push_back(group[static_cast<std::size_t>(slot)]);
    known = std::make_unique<std::vector<group_layout>>(compute(sorted));
  }
  found.layouts = known.get();
  return found;
}

pipeline place_layout(const pool& pool, const device_group& group, const std::vector<int>& slots,
                      const group_layout& layout, std::vector<int>& taken) {
  pipeline line;
  int first = 0;
  for (const auto& laid : layout.stages) {
    const auto& part = group[static_cast<std::size_t>(slots[static_cast<std::size_t>(laid.slot)])];
    const auto place = static_cast<std::size_t>(part.machine);
    stage made;
    for (int i = 0; i < laid.degree; ++i)
      made.devices.push_back(
          pool.machines()[place].devices[static_cast<std::size_t>(taken[place]++)]);
    made.first_layer = first;
    made.layers = laid.layers;
    first += laid.layers;
    line.push_back(std::move(made));
  }
  return line;
}

} // namespace hexgen::scheduler
