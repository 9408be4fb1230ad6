#include "scheduler/stage_sequence.hpp"

#include <algorithm>
#include <limits>
#include <set>

namespace hexgen::scheduler {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// State: devices used × node of the last stage × layers placed × whether one stage already took
/// neither one layer nor as many as fit.
class sequencer {
public:
  explicit sequencer(const stage_problem& problem);
  void run_from(int first_node);
  [[nodiscard]] std::vector<stage_sequence> take();

private:
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

  [[nodiscard]] std::size_t at(std::size_t code, int node, int placed, bool partial) const {
    return ((code * nodes_ + static_cast<std::size_t>(node)) * layers_ +
            static_cast<std::size_t>(placed)) *
               2 +
           (partial ? 1 : 0);
  }
  [[nodiscard]] int placed(std::int32_t index) const {
    return static_cast<int>(static_cast<std::size_t>(index) / 2 % layers_);
  }
  void improve(std::size_t index, double cost, std::int32_t previous, std::int32_t chosen) {
    if (cost < states_[index].cost)
      states_[index] = {cost, previous, chosen};
  }
  void finish(std::size_t code, double cost, std::int32_t previous, std::int32_t chosen) {
    if (cost < best_[code].cost)
      best_[code] = {cost, previous, chosen, true};
  }
  [[nodiscard]] bool fits(const stage_option& added, std::size_t code) const {
    const auto& used = counts_[code];
    return std::all_of(added.takes.begin(), added.takes.end(), [&](const auto& take) {
      const auto kind = static_cast<std::size_t>(take.first);
      return used[kind] + take.second <= problem_.class_sizes[kind];
    });
  }
  void extend(std::size_t from, std::size_t code, int node, int done, bool partial, int first);
  [[nodiscard]] std::vector<sequenced_stage> trace(const final_step& last) const;

  const stage_problem& problem_;
  std::size_t layers_, nodes_, codes_ = 1;
  std::vector<std::size_t> option_codes_;
  std::vector<std::vector<int>> counts_;
  std::vector<state> states_;
  std::vector<final_step> best_;
  std::vector<stage_sequence> found_;
};

/// One layer, as many as fit, or (once) any number between.
template <class Step>
void each_layer_count(int cap, int room, bool partial, Step&& step) {
  if (cap < 1 || room < 1)
    return;
  step(1, partial);
  if (cap > 1 && cap <= room)
    step(cap, partial);
  if (!partial)
    for (int count = 2; count < cap && count <= room; ++count)
      step(count, true);
}

sequencer::sequencer(const stage_problem& problem)
    : problem_(problem), layers_(static_cast<std::size_t>(problem.layers)),
      nodes_(static_cast<std::size_t>(problem.nodes)) {
  std::vector<std::size_t> radix;
  for (const int size : problem.class_sizes) {
    radix.push_back(codes_);
    codes_ *= static_cast<std::size_t>(size + 1);
  }
  for (const auto& option : problem.options) {
    std::size_t code = 0;
    for (const auto& [kind, count] : option.takes)
      code += radix[static_cast<std::size_t>(kind)] * static_cast<std::size_t>(count);
    option_codes_.push_back(code);
  }
  for (std::size_t code = 0; code < codes_; ++code)
    counts_.push_back(code_counts(problem, static_cast<std::uint32_t>(code)));
  states_.resize(codes_ * nodes_ * layers_ * 2);
  best_.resize(codes_);
  found_.resize(codes_);
}

void sequencer::run_from(int first_node) {
  std::fill(states_.begin(), states_.end(), state{});
  const int layers = problem_.layers;
  for (std::size_t i = 0; i < problem_.options.size(); ++i) {
    const auto& added = problem_.options[i];
    if (added.node != first_node)
      continue;
    const auto chosen = static_cast<std::int32_t>(i);
    if (added.cap_only >= layers)
      finish(option_codes_[i], layers * added.per_layer + added.as_last, -1, chosen);
    each_layer_count(added.cap_first, layers - 1, false, [&](int count, bool partial) {
      improve(at(option_codes_[i], added.node, count, partial), count * added.per_layer, -1,
              chosen);
    });
  }
  for (std::size_t code = 1; code < codes_; ++code)
    for (int node = 0; node < problem_.nodes; ++node)
      for (int done = 1; done < layers; ++done)
        for (const bool partial : {false, true}) {
          const auto from = at(code, node, done, partial);
          if (states_[from].cost < infinity)
            extend(from, code, node, done, partial, first_node);
        }
  for (std::size_t code = 0; code < codes_; ++code)
    if (best_[code].fresh) {
      found_[code] = {static_cast<std::uint32_t>(code), best_[code].cost, trace(best_[code])};
      best_[code].fresh = false;
    }
}

void sequencer::extend(std::size_t from, std::size_t code, int node, int done, bool partial,
                       int first_node) {
  const double cost = states_[from].cost;
  const auto previous = static_cast<std::int32_t>(from);
  const int room = problem_.layers - done;
  for (std::size_t i = 0; i < problem_.options.size(); ++i) {
    const auto& added = problem_.options[i];
    const auto to = static_cast<std::size_t>(added.node);
    const double hop = problem_.hop[static_cast<std::size_t>(node) * nodes_ + to];
    if (hop == infinity || !fits(added, code))
      continue;
    const auto chosen = static_cast<std::int32_t>(i);
    if (added.cap_last >= room) {
      const double back =
          problem_.way_back.empty()
              ? 0.0
              : problem_.way_back[to * nodes_ + static_cast<std::size_t>(first_node)];
      finish(code + option_codes_[i], cost + hop + room * added.per_layer + added.as_last + back,
             previous, chosen);
    }
    each_layer_count(added.cap_middle, room - 1, partial, [&](int count, bool now) {
      improve(at(code + option_codes_[i], added.node, done + count, now),
              cost + hop + count * added.per_layer, previous, chosen);
    });
  }
}

std::vector<sequenced_stage> sequencer::trace(const final_step& last) const {
  std::vector<sequenced_stage> stages;
  int end = problem_.layers;
  std::int32_t chosen = last.chosen, previous = last.previous;
  for (;;) {
    const int begin = previous < 0 ? 0 : placed(previous);
    stages.push_back({chosen, end - begin});
    if (previous < 0)
      break;
    end = begin;
    chosen = states_[static_cast<std::size_t>(previous)].chosen;
    previous = states_[static_cast<std::size_t>(previous)].previous;
  }
  std::reverse(stages.begin(), stages.end());
  return stages;
}

std::vector<stage_sequence> sequencer::take() {
  std::erase_if(found_, [](const stage_sequence& entry) { return entry.stages.empty(); });
  return std::move(found_);
}

} // namespace

double sequence_work(const stage_problem& problem) {
  double codes = 1;
  for (const int size : problem.class_sizes)
    codes *= size + 1;
  std::set<int> firsts;
  for (const auto& option : problem.options)
    firsts.insert(option.node);
  const auto starts = static_cast<double>(firsts.size());
  return codes * starts * starts * 2 * problem.layers * static_cast<double>(problem.options.size());
}

std::vector<int> code_counts(const stage_problem& problem, std::uint32_t code) {
  std::vector<int> found;
  for (const int size : problem.class_sizes) {
    const auto base = static_cast<std::uint32_t>(size + 1);
    found.push_back(static_cast<int>(code % base));
    code /= base;
  }
  return found;
}

std::vector<stage_sequence> sequence_stages(const stage_problem& problem) {
  if (problem.options.empty() || problem.layers < 1)
    return {};
  sequencer run(problem);
  std::set<int> firsts;
  for (const auto& option : problem.options)
    firsts.insert(option.node);
  for (const int node : firsts)
    run.run_from(node);
  return run.take();
}

} // namespace hexgen::scheduler
