#include "scheduler/simulator.hpp"
#include "scheduler/token_simulator.hpp"
#include "tests/catch.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

using namespace hexgen;
using namespace hexgen::scheduler;

namespace {

line_service line(float latency, float occupancy) {
  return {{latency}, {occupancy}};
}

config::workload one_kind() {
  return config::fixed_workload(64, 64);
}

double mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values)
    sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

} // namespace

TEST_CASE("a single line is the queue of the textbook", "[simulator]") {
  // M/D/1: mean wait = rho / (2 (1 - rho)) services.
  const auto service = line(1, 1);
  const auto stream = make_stream(one_kind(), 400'000, 3);
  for (const double load : {0.3, 0.6, 0.8}) {
    std::vector<float> ratios;
    simulate({&service}, stream, {dispatch::earliest_finish, load, {1.0F}}, ratios);
    CHECK(mean(ratios) == Approx(1 + load / (2 * (1 - load))).epsilon(0.03));
  }
}

TEST_CASE("policies differ as they must", "[simulator]") {
  const auto fast = line(1, 0.5F), slow = line(3, 1.5F);
  const auto stream = make_stream(one_kind(), 20'000, 4);
  const auto q99 = [&](dispatch policy) {
    std::vector<float> ratios;
    simulate({&fast, &slow}, stream, {policy, 1.8, {1.0F}}, ratios);
    return scale_for(ratios, 0.99);
  };
  CHECK(q99(dispatch::earliest_finish) < q99(dispatch::shortest_queue));
  CHECK(q99(dispatch::shortest_queue) < q99(dispatch::round_robin));
}

TEST_CASE("attainment, scale and rate agree with one another", "[simulator]") {
  const auto a = line(2, 1), b = line(3, 1);
  const auto stream = make_stream(one_kind(), 10'000, 5);
  simulation run{dispatch::earliest_finish, 1.2, {1.0F}};
  std::vector<float> ratios;
  simulate({&a, &b}, stream, run, ratios);
  const auto kept = ratios;
  const double scale = scale_for(ratios, 0.99);
  CHECK(attainment(kept, scale) >= 0.99);
  CHECK(attainment(kept, scale * 0.999) < 0.99);
  const double can = capacity({&a, &b}, one_kind().kinds);
  CHECK(can == Approx(2));
  const double rate = largest_rate({&a, &b}, stream, run, scale, 0.99, can);
  CHECK(rate == Approx(1.2).epsilon(0.03));
  // Light load: alone.
  run.rate = 1e-3;
  simulate({&a, &b}, stream, run, ratios);
  CHECK(scale_for(ratios, 0.9) == Approx(2).epsilon(1e-3));
}

TEST_CASE("the same seed gives the same bytes", "[simulator]") {
  config::workload w = one_kind();
  for (const auto process : {config::arrival_process::poisson, config::arrival_process::gamma,
                             config::arrival_process::mmpp}) {
    w.arrivals = process;
    w.gamma_cv = 2;
    const auto one = make_stream(w, 50'000, 9), two = make_stream(w, 50'000, 9),
               other = make_stream(w, 50'000, 10);
    CHECK(one.times == two.times);
    CHECK(one.kinds == two.kinds);
    CHECK(one.times != other.times);
    CHECK(one.times.back() == Approx(50'000).epsilon(0.15)); // mean rate one
    CHECK(std::is_sorted(one.times.begin(), one.times.end()));
  }
  // The burstier, the later the tail.
  const auto service = line(1, 1);
  const auto tail = [&](config::arrival_process process) {
    w.arrivals = process;
    const auto stream = make_stream(w, 50'000, 9);
    std::vector<float> ratios;
    simulate({&service}, stream, {dispatch::earliest_finish, 0.6, {1.0F}}, ratios);
    return scale_for(ratios, 0.99);
  };
  CHECK(tail(config::arrival_process::gamma) > tail(config::arrival_process::poisson));
  CHECK(tail(config::arrival_process::mmpp) > tail(config::arrival_process::poisson));
}

TEST_CASE("a trace is repeated at the asked rate", "[simulator]") {
  auto w = one_kind();
  w.arrivals = config::arrival_process::trace;
  w.trace = {{10, 0}, {11, 0}, {15, 0}};
  const auto stream = make_stream(w, 9, 1);
  REQUIRE(stream.times.size() == 9);
  CHECK(stream.times[0] == 0);
  CHECK(std::is_sorted(stream.times.begin(), stream.times.end()));
  CHECK(stream.times[8] / 8 == Approx(1).epsilon(0.05));
}

TEST_CASE("tokens that interleave give what max-stage promises", "[simulator]") {
  // Two stages, hops free: max-stage occupancy is near a token-by-token run at high load, and
  // both are exact for one request alone.
  line_stages stages;
  stages.kinds = {{{0.01, 0.011, 0, 0}, {0.01, 0.011, 0, 0}}};
  stages.output_tokens = {90};
  const auto service = line(2.0F, 1.0F);
  auto stream = make_stream(one_kind(), 4'000, 6);
  std::vector<float> tokens, simple;
  simulation run{dispatch::earliest_finish, 1e-4, {2.0F}};
  simulate_tokens({&service}, {stages}, stream, run, tokens);
  CHECK(mean(tokens) == Approx(1).epsilon(1e-3));
  run.rate = 0.85;
  simulate_tokens({&service}, {stages}, stream, run, tokens);
  simulate({&service}, stream, run, simple);
  CHECK(scale_for(tokens, 0.9) == Approx(scale_for(simple, 0.9)).epsilon(0.15));
}

TEST_CASE("the simulator is quick", "[simulator][speed]") {
  // Eight lines, nine kinds, as the full-price pool. The figure on a free core is far above; here
  // only that nothing became quadratic.
  std::vector<line_service> lines(8);
  std::vector<const line_service*> pointers;
  for (auto& one : lines) {
    one.latency.assign(9, 5.0F);
    one.occupancy.assign(9, 1.5F);
    pointers.push_back(&one);
  }
  auto w = one_kind();
  w.kinds.assign(9, {64, 64, 1.0 / 9});
  const auto stream = make_stream(w, 1'000'000, 7);
  std::vector<float> ratios;
  const auto start = std::chrono::steady_clock::now();
  simulate(pointers, stream, {dispatch::earliest_finish, 4, std::vector<float>(9, 1.0F)}, ratios);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  WARN("simulated requests per second: " << 1e6 / seconds);
  CHECK(seconds < 10);
}
