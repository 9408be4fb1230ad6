// The engine's batching and routing in virtual time.
//   bench_model routing          three ways to share requests out among unlike replicas
//   bench_model predict < JSON   what `hexgen bench` would measure on one replica
#include "scheduler/engine/routing_policy.hpp"
#include "tools/bench/served_line.hpp"
#include "tools/bench_serve/bench_workload.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <functional>
#include <iostream>
#include <numeric>
#include <random>
#include <string>

namespace {

using namespace hexgen;
using scheduler::time_us;
using tools::line_shape;
using tools::served_line;

struct request {
  time_us at = 0;
  std::vector<scheduler::token> prompt;
  int output = 0;
  std::size_t line = 0;
  time_us first = 0, last = 0;
  int emitted = 0, cached = 0;

  [[nodiscard]] double ttft_ms() const { return 1e-3 * static_cast<double>(first - at); }
  [[nodiscard]] double tpot_ms() const {
    return output > 1 ? 1e-3 * static_cast<double>(last - first) / (output - 1) : 0;
  }
};

/// Which line takes the request, and what it is told of tokens.
struct router {
  std::function<std::size_t(const request&)> pick;
  std::function<void(const request&)> on_token = [](const request&) {};
};

/// Requests in order of their arrival; false: one of them was refused.
bool run(std::deque<served_line>& lines, std::vector<request>& requests, const router& by) {
  std::size_t next = 0;
  for (;;) {
    std::size_t soonest = lines.size();
    for (std::size_t i = 0; i < lines.size(); ++i)
      if (const auto at = lines[i].returns_at();
          at && (soonest == lines.size() || *at < *lines[soonest].returns_at()))
        soonest = i;
    if (next < requests.size() &&
        (soonest == lines.size() || requests[next].at < *lines[soonest].returns_at())) {
      auto& r = requests[next++];
      r.line = by.pick(r);
      if (!lines[r.line].submit(next, r.prompt, r.output, r.at))
        return false;
      continue;
    }
    if (soonest == lines.size())
      return true;
    const auto now = *lines[soonest].returns_at();
    for (const auto& t : lines[soonest].land()) {
      auto& r = requests[t.id - 1];
      if (r.emitted++ == 0) {
        r.first = now;
        r.cached = t.cached;
      }
      r.last = now;
      by.on_token(r);
    }
  }
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

template <class F>
std::vector<double> of_each(const std::vector<request>& requests, F what) {
  std::vector<double> out;
  for (const auto& r : requests)
    out.push_back(what(r));
  return out;
}

// -- routing -----------------------------------------------------------------------------------

/// SmolLM2-135M on one core, held back to `speed`: a step of one token takes 4 ms at full speed.
line_shape core(double speed) {
  line_shape shape;
  shape.stages = {{2600 / speed, 1000 / speed, 300 / speed}};
  shape.blocks = 1536;
  return shape;
}

constexpr double speeds[] = {1.0, 0.5, 0.25};
constexpr int shared_tokens = 512, own_tokens = 64, output_tokens = 64, prompts_in_use = 64;
constexpr double ttft_goal_ms = 2000, tpot_goal_ms = 150;

/// Poisson arrivals; every prompt begins with one of `prompts_in_use` that many have in common.
std::vector<request> chats(double rate, int count) {
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(rate);
  std::uniform_int_distribution<int> which(0, prompts_in_use - 1), id(0, 40000);
  std::vector<request> all(static_cast<std::size_t>(count));
  double at = 0;
  for (auto& r : all) {
    at += gap(random);
    r.at = static_cast<time_us>(at * 1e6);
    r.output = output_tokens;
    std::mt19937_64 shared(static_cast<std::uint64_t>(which(random)) + 1000);
    for (int i = 0; i < shared_tokens; ++i)
      r.prompt.push_back(id(shared));
    for (int i = 0; i < own_tokens; ++i)
      r.prompt.push_back(id(random));
  }
  return all;
}

/// As the router keeps its books: tokens sent and not come back, of outputs those that may come.
class affine_router {
public:
  affine_router() : policy_({}) {
    for (std::size_t i = 0; i < std::size(speeds); ++i)
      seen_.push_back({i, speeds[i] * 250, 0, 0, 16 * core(1).blocks});
  }
  std::size_t pick(const request& r) {
    const auto at = *policy_.pick(seen_, r.prompt, static_cast<std::uint64_t>(r.output));
    seen_[at].outstanding_tokens += r.prompt.size() + static_cast<std::uint64_t>(r.output);
    seen_[at].held_tokens += r.prompt.size() + static_cast<std::uint64_t>(r.output);
    return at;
  }
  void on_token(const request& r) {
    auto& at = seen_[r.line];
    at.outstanding_tokens -= r.emitted == 1 ? r.prompt.size() + 1 : 1;
    if (r.emitted == r.output)
      at.held_tokens -= r.prompt.size() + static_cast<std::uint64_t>(r.output);
  }

private:
  scheduler::routing_policy policy_;
  std::vector<scheduler::routing_candidate> seen_;
};

void print_routing(const std::string& name, double rate, int count, const router& by) {
  std::deque<served_line> lines;
  for (const double speed : speeds)
    lines.emplace_back(core(speed));
  auto requests = chats(rate, count);
  if (!run(lines, requests, by)) {
    std::printf("| %.1f | %s | a request was refused |\n", rate, name.c_str());
    return;
  }
  const auto ttft = of_each(requests, [](const auto& r) { return r.ttft_ms(); });
  const auto tpot = of_each(requests, [](const auto& r) { return r.tpot_ms(); });
  const double good = mean(of_each(requests, [](const auto& r) {
    return r.ttft_ms() <= ttft_goal_ms && r.tpot_ms() <= tpot_goal_ms ? 1.0 : 0.0;
  }));
  const double cached = mean(of_each(requests, [](const auto& r) {
    return static_cast<double>(r.cached) / static_cast<double>(r.prompt.size());
  }));
  std::printf("| %.1f | %s | %.0f / %.0f | %.0f / %.0f | %.2f | %.0f %% |\n", rate, name.c_str(),
              percentile(ttft, 0.5), percentile(ttft, 0.99), percentile(tpot, 0.5),
              percentile(tpot, 0.99), good * rate, 100 * cached);
}

int routing() {
  std::printf("| requests/s | routing | TTFT p50 / p99 ms | TPOT p50 / p99 ms | goodput "
              "requests/s | cached |\n|---|---|---|---|---|---|\n");
  constexpr int count = 2000;
  for (const double rate : {1.0, 2.0, 3.0, 4.0}) {
    affine_router affine;
    print_routing("ours", rate, count,
                  {[&](const request& r) { return affine.pick(r); },
                   [&](const request& r) { affine.on_token(r); }});
    std::vector<int> open(std::size(speeds));
    print_routing("least queue", rate, count,
                  {[&](const request&) {
                     const auto least = static_cast<std::size_t>(
                         std::min_element(open.begin(), open.end()) - open.begin());
                     ++open[least];
                     return least;
                   },
                   [&](const request& r) { open[r.line] -= r.emitted == r.output ? 1 : 0; }});
    std::size_t turn = 0;
    print_routing("round robin", rate, count,
                  {[&](const request&) { return turn++ % std::size(speeds); }});
  }
  return 0;
}

// -- prediction --------------------------------------------------------------------------------

int predict() {
  const auto given = nlohmann::json::parse(std::cin);
  line_shape shape;
  for (const auto& s : given.at("stages"))
    shape.stages.push_back({s.at("fixed_us"), s.at("token_us"), s.at("row_us")});
  shape.overhead_us = given.at("overhead_us");
  shape.blocks = given.at("blocks");
  shape.prefix_cache = false;
  tools::bench_options load; // the same requests at the same times
  load.request_rate = given.at("rate");
  load.num_prompts = given.at("requests");
  load.input_len = given.at("prompt_tokens");
  load.output_len = given.at("output_tokens");
  load.seed = given.at("seed");
  std::vector<request> requests;
  for (auto& one : tools::make_workload(load, load.num_prompts, 0)) {
    request r;
    r.at = static_cast<time_us>(one.at_s * 1e6);
    r.prompt.assign(one.prompt.begin(), one.prompt.end());
    r.output = one.output_len;
    requests.push_back(std::move(r));
  }
  std::deque<served_line> lines;
  lines.emplace_back(std::move(shape));
  if (!run(lines, requests, {[](const request&) { return std::size_t{0}; }})) {
    std::fprintf(stderr, "a request does not fit the replica\n");
    return 1;
  }
  double tokens = 0, end = 0;
  for (const auto& r : requests) {
    tokens += r.output;
    end = std::max(end, 1e-6 * static_cast<double>(r.last));
  }
  nlohmann::json out;
  out["mean_ttft_ms"] = mean(of_each(requests, [](const auto& r) { return r.ttft_ms(); }));
  out["mean_tpot_ms"] = mean(of_each(requests, [](const auto& r) { return r.tpot_ms(); }));
  out["output_throughput"] = tokens / (end - 1e-6 * static_cast<double>(requests.front().at));
  std::cout << out.dump() << '\n';
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  if (what == "routing")
    return routing();
  if (what == "predict")
    return predict();
  std::fprintf(stderr, "usage: bench_model routing | predict\n");
  return 2;
}
