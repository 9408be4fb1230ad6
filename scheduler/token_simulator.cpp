#include "scheduler/token_simulator.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <queue>

namespace hexgen::scheduler {

namespace {

struct arrival {
  std::size_t request;
  double time;
  int kind;
};

/// One pipeline, its requests in order. Events are tokens that reach a stage.
class token_line {
public:
  token_line(const line_stages& stages, const std::vector<float>& base, std::vector<float>& ratios)
      : stages_(stages), base_(base), ratios_(ratios), free_(stages.kinds.front().size(), 0.0) {}

  void run(const std::vector<arrival>& requests) {
    std::size_t next = 0, inside = 0;
    std::deque<arrival> waiting;
    while (next < requests.size() || !events_.empty()) {
      const double coming =
          next < requests.size() ? requests[next].time : std::numeric_limits<double>::infinity();
      if (!events_.empty() && events_.top().time <= coming) {
        const auto event = events_.top();
        events_.pop();
        if (!advance(event))
          continue;
        --inside;
        if (!waiting.empty()) {
          enter(waiting.front(), event.time);
          waiting.pop_front();
          ++inside;
        }
        continue;
      }
      const auto& request = requests[next++];
      if (inside < free_.size()) {
        enter(request, request.time);
        ++inside;
      } else {
        waiting.push_back(request);
      }
    }
  }

private:
  struct token {
    double time;
    std::size_t order; // ties go to the older event
    std::size_t stage; // == stages: the token is out
    int left;          // passes after this one
    bool prefill;
    arrival request;
    bool operator>(const token& other) const {
      return time != other.time ? time > other.time : order > other.order;
    }
  };

  void enter(const arrival& request, double now) {
    const int passes = stages_.output_tokens[static_cast<std::size_t>(request.kind)];
    events_.push({now, order_++, 0, passes, true, request});
  }

  /// True when the request has left.
  bool advance(token event) {
    const auto kind = static_cast<std::size_t>(event.request.kind);
    if (event.stage == free_.size()) {
      if (event.left == 0) {
        ratios_[event.request.request] =
            static_cast<float>(event.time - event.request.time) / base_[kind];
        return true;
      }
      event.stage = 0;
      event.prefill = false;
      --event.left;
    }
    const auto& times = stages_.kinds[kind][event.stage];
    const double start = std::max(event.time, free_[event.stage]);
    free_[event.stage] = start + (event.prefill ? times.prefill_s : times.decode_s);
    event.time = free_[event.stage] + (event.prefill ? times.prefill_hop_s : times.decode_hop_s);
    ++event.stage;
    event.order = order_++;
    events_.push(event);
    return false;
  }

  const line_stages& stages_;
  const std::vector<float>& base_;
  std::vector<float>& ratios_;
  std::vector<double> free_;
  std::size_t order_ = 0;
  std::priority_queue<token, std::vector<token>, std::greater<>> events_;
};

} // namespace

void simulate_tokens(const std::vector<const line_service*>& lines,
                     const std::vector<line_stages>& stages, const request_stream& stream,
                     const simulation& setting, std::vector<float>& ratios) {
  ratios.assign(stream.times.size(), 0);
  std::vector<std::vector<arrival>> shares(lines.size());
  std::vector<double> free(lines.size(), 0.0);
  for (std::size_t i = 0; i < stream.times.size(); ++i) {
    const double now = stream.times[i] / setting.rate;
    const auto kind = static_cast<std::size_t>(stream.kinds[i]);
    std::size_t best = i % lines.size();
    if (setting.policy != dispatch::round_robin) {
      double finish = std::numeric_limits<double>::infinity();
      for (std::size_t p = 0; p < lines.size(); ++p) {
        const double end = std::max(free[p], now) + static_cast<double>(lines[p]->latency[kind]);
        if (end < finish) {
          finish = end;
          best = p;
        }
      }
    }
    free[best] = std::max(free[best], now) + static_cast<double>(lines[best]->occupancy[kind]);
    shares[best].push_back({i, now, static_cast<int>(kind)});
  }
  for (std::size_t p = 0; p < lines.size(); ++p)
    token_line(stages[p], setting.base, ratios).run(shares[p]);
}

} // namespace hexgen::scheduler
