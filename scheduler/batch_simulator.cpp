#include "scheduler/batch_simulator.hpp"

#include "scheduler/engine/step_batcher.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <memory>
#include <queue>
#include <unordered_map>

namespace hexgen::scheduler {

namespace {

constexpr double us = 1e-6;

time_us to_us(double seconds) {
  return static_cast<time_us>(std::llround(seconds / us));
}

struct request {
  int prompt = 0, output = 0, emitted = 0;
  double arrived = 0, first = 0;
  bool late = false;
};

class replica {
public:
  replica(const calibrated_cost& costs, const pipeline& line, const batch_setting& setting,
          int longest)
      : costs_(costs), line_(line), free_(line.size(), 0.0) {
    double tokens = std::numeric_limits<double>::infinity();
    for (std::size_t j = 0; j < line.size(); ++j)
      tokens = std::min(tokens, costs.kv_tokens(line[j].devices, line[j].layers, position(j)));
    batcher_options options;
    options.blocks = static_cast<std::uint32_t>(std::min(1e8, tokens / kv_block_tokens));
    options.steps_in_flight = static_cast<int>(line.size());
    options.max_step_tokens = setting.max_step_tokens;
    options.max_running = costs.setting().max_running;
    options.max_waiting = 1 << 20; // nothing is refused for being early
    options.max_sequence = longest + 1;
    options.prefix_cache = false;
    batcher_ = std::make_unique<step_batcher>(options);
    const auto cost = time_pipeline(costs, line, longest / 2, longest / 2);
    seconds_per_token_ = cost.bottleneck_s / std::max(1, longest);
  }

  bool submit(sequence_id id, const request& what, double now) {
    sequence_request wanted;
    wanted.id = id;
    wanted.tokens.assign(static_cast<std::size_t>(what.prompt), static_cast<token>(id & 0xffff));
    wanted.max_new = what.output;
    if (batcher_->submit(std::move(wanted), to_us(now)) != submit_verdict::accepted)
      return false;
    outstanding_ += what.prompt + what.output;
    return true;
  }

  struct running_step {
    std::uint64_t number = 0;
    double returns = 0;
    std::vector<sequence_id> wants; // a token
    int decodes = 0;
  };

  /// Forms and times the next step, if there may be one.
  bool next(double now, running_step& made) {
    auto step = batcher_->next(to_us(now));
    if (!step)
      return false;
    made = {step->number, 0, {}, 0};
    double context = 0, prefill = 0;
    for (const auto& entry : step->entries) {
      const bool decode = entry.tokens == 1 && entry.position > 0;
      made.decodes += decode ? 1 : 0;
      context += decode ? entry.position : 0;
      prefill += decode ? 0 : entry.tokens;
      if (entry.logits > 0)
        made.wants.push_back(entry.sequence);
    }
    const double mean = made.decodes > 0 ? context / made.decodes : 0;
    double time = now;
    for (std::size_t j = 0; j < line_.size(); ++j) {
      time = std::max(time, free_[j]);
      time += costs_.step_s(line_[j].devices, line_[j].layers, position(j), made.decodes, mean,
                            prefill);
      free_[j] = time;
      time += j + 1 < line_.size() ? costs_.step_hop_s(line_[j].devices, line_[j + 1].devices,
                                                       made.decodes + prefill)
                                   : costs_.way_back(line_[j].devices, line_[0].devices, 0);
    }
    made.returns = time;
    return true;
  }

  void done(const running_step& step, const std::vector<sampled_id>& tokens, double now) {
    outstanding_ -= static_cast<double>(tokens.size());
    batcher_->complete(step.number, tokens, to_us(now));
  }
  void prompt_done(int tokens) { outstanding_ -= tokens; }

  [[nodiscard]] double expected_wait() const { return outstanding_ * seconds_per_token_; }
  [[nodiscard]] double outstanding() const { return outstanding_; }
  [[nodiscard]] std::uint64_t preemptions() const { return batcher_->stats().preemptions; }

private:
  [[nodiscard]] stage_position position(std::size_t j) const {
    return {j == 0, j + 1 == line_.size()};
  }

  const calibrated_cost& costs_;
  const pipeline& line_;
  std::vector<double> free_;
  std::unique_ptr<step_batcher> batcher_;
  double outstanding_ = 0, seconds_per_token_ = 0;
};

class simulation_run {
public:
  simulation_run(const calibrated_cost& costs, const std::vector<pipeline>& lines,
                 const std::vector<config::request_kind>& kinds, const request_stream& stream,
                 const batch_setting& setting, double scale, std::size_t most_late)
      : kinds_(kinds), stream_(stream), setting_(setting), scale_(scale), most_late_(most_late),
        oldest_(kinds.size()) {
    int longest = 1;
    for (const auto& kind : kinds)
      longest = std::max(longest, kind.prompt_tokens + kind.output_tokens);
    for (const auto& line : lines)
      replicas_.push_back(std::make_unique<replica>(costs, line, setting, longest));
  }

  /// Nothing when too many are late.
  std::optional<batch_result> run() {
    result_.ratios.assign(stream_.times.size(), std::numeric_limits<float>::infinity());
    result_.finished_s.assign(stream_.times.size(), std::numeric_limits<double>::infinity());
    requests_.resize(stream_.times.size());
    std::size_t next = 0;
    while (next < stream_.times.size() || !events_.empty()) {
      if (late_ > most_late_)
        return std::nullopt;
      const double coming = next < stream_.times.size() ? stream_.times[next] / setting_.rate
                                                        : std::numeric_limits<double>::infinity();
      if (!events_.empty() && events_.top().step.returns <= coming) {
        const auto event = events_.top();
        events_.pop();
        finish(event);
      } else {
        arrive(next++, coming);
      }
    }
    if (late_ > most_late_)
      return std::nullopt;
    const auto count = static_cast<double>(std::max<std::size_t>(1, finished_));
    result_.tokens_per_s = last_ > 0 ? tokens_ / last_ : 0;
    result_.mean_batch = steps_ > 0 ? decodes_ / steps_ : 0;
    result_.mean_ttft_s /= count;
    result_.mean_tpot_s /= count;
    for (const auto& one : replicas_)
      result_.preemptions += one->preemptions();
    return std::move(result_);
  }

private:
  struct event {
    replica::running_step step;
    std::size_t which = 0;
    std::uint64_t order = 0;
    bool operator>(const event& other) const {
      return step.returns != other.step.returns ? step.returns > other.step.returns
                                                : order > other.order;
    }
  };

  void arrive(std::size_t number, double now) {
    const auto& kind = kinds_[stream_.kinds[number]];
    requests_[number] = {kind.prompt_tokens, kind.output_tokens, 0, now, 0, false};
    if (std::isfinite(scale_)) {
      oldest_[stream_.kinds[number]].push_back(number);
      notice_late(now);
    }
    std::size_t best = number % replicas_.size();
    if (setting_.policy != dispatch::round_robin)
      for (std::size_t p = 0; p < replicas_.size(); ++p) {
        const bool queue = setting_.policy == dispatch::shortest_queue;
        const auto load = [&](std::size_t i) {
          return queue ? replicas_[i]->outstanding() : replicas_[i]->expected_wait();
        };
        if (p == 0 || load(p) < load(best))
          best = p;
      }
    if (!replicas_[best]->submit(number + 1, requests_[number], now)) {
      ++result_.refused;
      count_late(number);
      return;
    }
    fill(best, now);
  }

  /// Whoever is inside past its deadline is late whenever it ends: an overload shows long before.
  void notice_late(double now) {
    for (std::size_t k = 0; k < oldest_.size(); ++k)
      while (!oldest_[k].empty()) {
        const auto number = oldest_[k].front();
        const bool inside = !std::isfinite(result_.finished_s[number]);
        if (inside && !beyond(number, now))
          break;
        if (inside)
          count_late(number);
        oldest_[k].pop_front();
      }
  }

  /// As attainment() counts.
  [[nodiscard]] bool beyond(std::size_t number, double now) const {
    return static_cast<double>(ratio(number, now)) > scale_;
  }
  [[nodiscard]] float ratio(std::size_t number, double now) const {
    return static_cast<float>(now - requests_[number].arrived) /
           setting_.base[stream_.kinds[number]];
  }

  void count_late(std::size_t number) {
    late_ += requests_[number].late ? 0 : 1;
    requests_[number].late = true;
  }

  void fill(std::size_t which, double now) {
    replica::running_step step;
    while (replicas_[which]->next(now, step))
      events_.push({step, which, order_++});
  }

  void finish(const event& returned) {
    const double now = returned.step.returns;
    std::vector<sampled_id> tokens;
    for (const auto id : returned.step.wants) {
      auto& one = requests_[id - 1];
      if (++one.emitted == 1) {
        one.first = now;
        replicas_[returned.which]->prompt_done(one.prompt);
      }
      const bool ends = one.emitted >= one.output;
      tokens.push_back({id, 0, ends});
      ++tokens_;
      if (ends)
        leave(id - 1, now);
    }
    if (returned.step.decodes > 0) {
      decodes_ += returned.step.decodes;
      ++steps_;
    }
    last_ = std::max(last_, now);
    replicas_[returned.which]->done(returned.step, tokens, now);
    fill(returned.which, now);
  }

  void leave(std::size_t number, double now) {
    const auto& one = requests_[number];
    result_.ratios[number] = ratio(number, now);
    result_.finished_s[number] = now;
    if (beyond(number, now))
      count_late(number);
    result_.mean_ttft_s += one.first - one.arrived;
    if (one.output > 1)
      result_.mean_tpot_s += (now - one.first) / (one.output - 1);
    ++finished_;
  }

  const std::vector<config::request_kind>& kinds_;
  const request_stream& stream_;
  const batch_setting& setting_;
  double scale_;
  std::size_t most_late_, late_ = 0;
  std::vector<std::deque<std::size_t>> oldest_; // of each kind, who may still be inside
  std::vector<std::unique_ptr<replica>> replicas_;
  std::vector<request> requests_;
  std::priority_queue<event, std::vector<event>, std::greater<>> events_;
  std::uint64_t order_ = 0;
  batch_result result_;
  double tokens_ = 0, last_ = 0, decodes_ = 0, steps_ = 0;
  std::size_t finished_ = 0;
};

} // namespace

batch_result simulate_batches(const calibrated_cost& costs, const std::vector<pipeline>& lines,
                              const std::vector<config::request_kind>& kinds,
                              const request_stream& stream, const batch_setting& setting) {
  return *simulation_run(costs, lines, kinds, stream, setting,
                         std::numeric_limits<double>::infinity(), stream.times.size())
              .run();
}

std::optional<batch_result> simulate_batches_within(const calibrated_cost& costs,
                                                    const std::vector<pipeline>& lines,
                                                    const std::vector<config::request_kind>& kinds,
                                                    const request_stream& stream,
                                                    const batch_setting& setting, double scale,
                                                    std::size_t most_late) {
  return simulation_run(costs, lines, kinds, stream, setting, scale, most_late).run();
}

saturation saturate(const calibrated_cost& costs, const std::vector<pipeline>& lines,
                    const std::vector<config::request_kind>& kinds, const request_stream& stream,
                    batch_setting setting) {
  constexpr double at_once = 1e9; // requests per second
  setting.rate = at_once;
  const auto run = simulate_batches(costs, lines, kinds, stream, setting);
  std::vector<std::pair<double, int>> ends; // when, and tokens of the answer
  for (std::size_t i = 0; i < run.finished_s.size(); ++i)
    if (std::isfinite(run.finished_s[i]))
      ends.emplace_back(run.finished_s[i], kinds[stream.kinds[i]].output_tokens);
  std::sort(ends.begin(), ends.end());
  const auto from = ends.size() / 4, to = ends.size() - ends.size() / 4;
  if (to < from + 2 || ends[to - 1].first <= ends[from].first)
    return {};
  saturation found;
  for (auto i = from + 1; i < to; ++i) {
    found.requests_per_s += 1;
    found.tokens_per_s += ends[i].second;
  }
  const double seconds = ends[to - 1].first - ends[from].first;
  return {found.requests_per_s / seconds, found.tokens_per_s / seconds};
}

double largest_batch_rate(const calibrated_cost& costs, const std::vector<pipeline>& lines,
                          const std::vector<config::request_kind>& kinds,
                          const request_stream& stream, batch_setting setting, double scale,
                          double share, double most, double floor) {
  const auto late = may_be_late(stream.times.size(), share);
  const auto keeps = [&](double rate) {
    setting.rate = rate;
    return simulate_batches_within(costs, lines, kinds, stream, setting, scale, late).has_value();
  };
  double low = floor, high = most;
  if (low >= high || (low > 0 && !keeps(low)))
    return 0;
  for (int i = 0; i < 12 && high - low > 1e-2 * high; ++i) {
    const double middle = (low + high) / 2;
    (keeps(middle) ? low : high) = middle;
  }
  return low;
}

} // namespace hexgen::scheduler
