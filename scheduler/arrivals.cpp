#include "scheduler/arrivals.hpp"

#include "scheduler/random.hpp"

#include <algorithm>
#include <cmath>

namespace hexgen::scheduler {

namespace {

/// Marsaglia and Tsang; shapes below one by the power trick. Mean `shape`.
double gamma_value(double shape, random_source& random) {
  if (shape < 1)
    return gamma_value(shape + 1, random) * std::pow(random.uniform(), 1 / shape);
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = random.normal(), v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(random.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
      return d * v;
  }
}

/// Gaps of a process with two rates; a state lasts an exponential time.
class modulated {
public:
  modulated(const config::workload& w, random_source& random) : random_(random) {
    rates_[1] = w.burst_factor;
    rates_[0] = std::max(0.0, (1 - w.burst_share * w.burst_factor) / (1 - w.burst_share));
    stay_[1] = w.burst_seconds;
    stay_[0] = w.burst_seconds * (1 - w.burst_share) / w.burst_share;
    left_ = stay_[0] * random_.exponential();
  }
  double gap() {
    double waited = 0, work = random_.exponential();
    while (rates_[state_] * left_ < work) {
      work -= rates_[state_] * left_;
      waited += left_;
      state_ = 1 - state_;
      left_ = stay_[state_] * random_.exponential();
    }
    const double rest = work / rates_[state_];
    left_ -= rest;
    return waited + rest;
  }

private:
  random_source& random_;
  double rates_[2] = {1, 1}, stay_[2] = {1, 1};
  int state_ = 0;
  double left_ = 0;
};

request_stream replay(const config::workload& workload, std::size_t count) {
  request_stream made;
  const auto size = workload.trace.size();
  const double span = workload.trace.back().time_s - workload.trace.front().time_s;
  const double gap = span / static_cast<double>(size - 1); // between repetitions
  const double scale = 1 / gap;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& entry = workload.trace[i % size];
    const auto round = static_cast<double>(i / size);
    made.times.push_back((entry.time_s - workload.trace.front().time_s + round * (span + gap)) *
                         scale);
    made.kinds.push_back(static_cast<std::uint16_t>(entry.kind));
  }
  return made;
}

} // namespace

request_stream make_stream(const config::workload& workload, std::size_t count,
                           std::uint64_t seed) {
  if (workload.arrivals == config::arrival_process::trace)
    return replay(workload, count);
  request_stream made;
  made.times.reserve(count);
  made.kinds.reserve(count);
  random_source random(seed);
  modulated bursts(workload, random);
  std::vector<double> cumulative;
  double sum = 0;
  for (const auto& kind : workload.kinds)
    cumulative.push_back(sum += kind.share);
  const double shape = 1 / (workload.gamma_cv * workload.gamma_cv);
  double now = 0;
  for (std::size_t i = 0; i < count; ++i) {
    switch (workload.arrivals) {
    case config::arrival_process::gamma:
      now += gamma_value(shape, random) / shape;
      break;
    case config::arrival_process::mmpp:
      now += bursts.gap();
      break;
    default:
      now += random.exponential();
    }
    const double draw = random.uniform() * sum;
    const auto kind = std::upper_bound(cumulative.begin(), cumulative.end(), draw);
    made.times.push_back(now);
    made.kinds.push_back(static_cast<std::uint16_t>(std::min<std::ptrdiff_t>(
        kind - cumulative.begin(), static_cast<std::ptrdiff_t>(cumulative.size()) - 1)));
  }
  return made;
}

} // namespace hexgen::scheduler
