#include "tools/planning/batched_search.hpp"

#include "scheduler/batch_judge.hpp"
#include "tools/planning/in_parallel.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>

namespace hexgen::tools {

namespace {

using steady = std::chrono::steady_clock;
using scheduler::grouping;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::size_t short_requests = 1000, long_requests = 3000;
constexpr std::size_t proposals = 4;     // of each size of batch
constexpr std::size_t finalists = 3;     // of each round, simulated on the long stream
constexpr int steps_for_one = 100;       // closed-form steps that one simulated step stands for
constexpr double share_of_forms = 0.4;   // of the time, for the closed form
constexpr double share_of_judging = 0.7; // until what it proposes is judged

struct candidate {
  std::size_t size = 0; // index of the size of batch
  std::size_t rank = 0; // among its size's, as the closed form has it
  grouping it;
  std::vector<scheduler::pipeline> lines;
  double value = -infinity;
};

} // namespace

batched_found search_batched(const input_flags& flags, const solve_flags& how,
                             const planning_inputs& inputs,
                             const scheduler::search_setting& setting,
                             const scheduler::layout_setting& layouts) {
  const auto start = steady::now();
  const auto since = [&] { return std::chrono::duration<double>(steady::now() - start).count(); };
  const auto sizes =
      flags.concurrency > 0 ? std::vector{flags.concurrency} : std::vector{4, 8, 16, 32, 64, 128};
  std::vector<std::unique_ptr<scheduler::cost_model>> costs;
  std::vector<candidate> candidates;
  batched_found found;
  for (std::size_t s = 0; s < sizes.size() && !(interrupted() && !candidates.empty()); ++s) {
    costs.push_back(costs_for(flags, inputs, sizes[s]));
    auto forms = setting;
    forms.iterations = std::max(200, how.iterations / static_cast<int>(sizes.size()));
    const auto proposed =
        search_islands(*costs[s], inputs.workload, forms, layouts, how.islands,
                       how.seconds * share_of_forms / static_cast<double>(sizes.size()), false);
    found.told.iterations += proposed.iterations;
    found.told.evaluations += proposed.evaluations;
    scheduler::layout_book book(*costs[s], inputs.workload.kinds, layouts);
    auto offered = setting.extra_seeds;
    offered.insert(offered.end(), proposed.ranked.begin(),
                   proposed.ranked.begin() +
                       static_cast<std::ptrdiff_t>(std::min(proposals, proposed.ranked.size())));
    for (std::size_t i = 0; i < offered.size(); ++i)
      if (auto lines = place_grouping(book, offered[i], how.replicas); !lines.empty())
        candidates.push_back({s, i, std::move(offered[i]), std::move(lines)});
  }
  if (candidates.empty())
    return found;
  const auto calibrated = [&](std::size_t size) -> const scheduler::calibrated_cost& {
    return dynamic_cast<const scheduler::calibrated_cost&>(*costs[size]);
  };
  const auto larger =
      std::max<std::size_t>(1, static_cast<std::size_t>(inputs.pool->devices()) / 64);
  const auto value = [&](std::size_t size, const std::vector<scheduler::pipeline>& lines,
                         double floor, bool fresh) {
    // A judge holds a stream of its own; making one is nothing beside simulating it.
    const scheduler::batch_judge judge(calibrated(size), inputs.workload, setting,
                                       (fresh ? long_requests : short_requests) * larger,
                                       setting.seed * 2 + (fresh ? 2000 : 1));
    return judge(lines, floor);
  };
  // The first of every size is judged whatever the time, the others while there is some.
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const candidate& a, const candidate& b) { return a.rank < b.rank; });
  in_parallel(candidates.size(), how.islands, [&](std::size_t i) {
    if (i >= sizes.size() && (interrupted() || since() > how.seconds * share_of_judging))
      return;
    candidates[i].value = value(candidates[i].size, candidates[i].lines, -infinity, false);
  });
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const candidate& a, const candidate& b) { return a.value > b.value; });
  const auto size = candidates.front().size;
  // On from there, as the engine batches.
  std::vector<scheduler::search_result> refined(static_cast<std::size_t>(how.islands));
  in_parallel(refined.size(), how.islands, [&](std::size_t island) {
    scheduler::layout_book book(*costs[size], inputs.workload.kinds, layouts);
    auto mine = setting;
    mine.seed = setting.seed + 7919 * island;
    mine.iterations = how.iterations / steps_for_one;
    mine.stagnation = mine.epoch = std::max(1, mine.iterations);
    mine.ranked = finalists;
    mine.enough = infinity;
    mine.stop = [&] { return interrupted() || since() > how.seconds; };
    mine.extra_seeds.clear();
    for (const auto& one : candidates)
      mine.extra_seeds.push_back(one.it);
    if (how.progress && island == 0) {
      std::fprintf(stderr, "  %6.2f s  steps of %d sequences: %.6g as the engine batches\n",
                   since(), sizes[size], candidates.front().value);
      mine.progress = [&](int step, double reached) {
        std::fprintf(stderr, "  %6.2f s  step %d: %.6g\n", since(), step, reached);
      };
    }
    mine.judge = [&](const grouping& it, double floor, bool fresh) {
      return value(size, place_grouping(book, it, how.replicas), floor, fresh);
    };
    refined[island] = search_groups(book, inputs.workload, mine);
  });
  // The islands' winners and the closed form's, on one stream that none was fitted to.
  std::vector<candidate> finals;
  scheduler::layout_book book(*costs[size], inputs.workload.kinds, layouts);
  for (auto& one : refined) {
    found.told.iterations += one.iterations;
    found.told.evaluations += one.evaluations;
    found.told.ended = one.ended;
    finals.push_back({size, 0, one.best, place_grouping(book, one.best, how.replicas)});
  }
  for (std::size_t i = 0; i < std::min(finalists, candidates.size()); ++i)
    finals.push_back(candidates[i]);
  in_parallel(finals.size(), how.islands, [&](std::size_t i) {
    finals[i].value = value(finals[i].size, finals[i].lines, -infinity, true);
  });
  auto& best =
      *std::max_element(finals.begin(), finals.end(),
                        [](const candidate& a, const candidate& b) { return a.value < b.value; });
  found.told.evaluations += static_cast<int>(candidates.size() + finals.size());
  found.told.best = best.it;
  found.told.value = best.value;
  found.lines = std::move(best.lines);
  found.concurrency = sizes[best.size];
  found.costs = std::move(costs[best.size]);
  return found;
}

} // namespace hexgen::tools
