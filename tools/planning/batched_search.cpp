#include "tools/planning/batched_search.hpp"

#include "scheduler/baselines.hpp"
#include "scheduler/batch_judge.hpp"
#include "scheduler/replan.hpp"
#include "tools/planning/in_parallel.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <mutex>

namespace hexgen::tools {

namespace {

using steady = std::chrono::steady_clock;
using scheduler::grouping;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::size_t short_requests = 1000, long_requests = 3000;
constexpr std::size_t form_requests = 3000; // for the closed form, whose winners are judged again
constexpr std::size_t proposals = 4;        // of each size of batch
constexpr std::size_t finalists = 3;        // of each round, simulated on the long stream
constexpr std::size_t baseline_rank = 2;    // baselines are judged before third proposals
constexpr int steps_for_one = 100;          // closed-form steps that one simulated step stands for
constexpr std::size_t refined_sizes = 4;    // of batch, that the search goes on at
/// How near the best a candidate comes that is not given up.
constexpr double near = 0.03;
/// Shares of the time: when the closed form ends, the judging of what it proposes, the search that
/// goes on from there, and the ranking of each island's best.
constexpr double forms_end = 0.3, judging_ends = 0.6, search_ends = 0.85, ranking_ends = 0.93;

struct candidate {
  std::size_t size = 0; // index of the assumption
  std::size_t rank = 0; // among its size's, as the closed form has it
  grouping it;
  std::vector<scheduler::pipeline> lines;
  double value = -infinity;
  bool baseline = false;
};

/// What the closed form assumes of every pipeline. It thinks of one size of batch, and of KV that
/// every stage has room for, whatever the pipeline's length; but a pipeline has a step in each of
/// its stages.
struct assumption {
  int size = 0;      // sequences that share a step
  int sequences = 0; // that have room
  std::size_t most_stages = 0;
};

/// Room for two steps, which short pipelines want, and then room for as many sequences as long ones
/// keep busy, up to what the engine runs.
std::vector<assumption> assumptions(const input_flags& flags) {
  const auto sizes =
      flags.concurrency > 0 ? std::vector{flags.concurrency} : std::vector{32, 64, 16, 128, 8, 4};
  const auto stages = [](int running, int size) {
    return static_cast<std::size_t>(std::max(1, running / size));
  };
  std::vector<assumption> all;
  for (const int size : sizes)
    all.push_back({size, 2 * size, stages(flags.max_num_seqs, size)});
  for (int running = 256; running <= flags.max_num_seqs; running *= 2)
    for (const int size : sizes)
      if (const auto most = stages(running, size); most >= 4 && most <= 32)
        all.push_back({size, running, most});
  return all;
}

scheduler::layout_setting layouts_for(scheduler::layout_setting layouts, const assumption& of) {
  layouts.most_stages = std::min(layouts.most_stages, of.most_stages);
  return layouts;
}

/// The first starting point in its layouts of least latency.
grouping quick_seed(scheduler::layout_book& book) {
  const auto seeds = seed_groupings(book);
  const auto quick = std::find_if(seeds.begin(), seeds.end(), [](const grouping& one) {
    return !one.genes.empty() && one.genes.front().choice == 0;
  });
  return quick == seeds.end() ? grouping{} : *quick;
}

/// The grouping without its slowest pipeline, without its two slowest, and so on (eighths of many):
/// the engine's router fills the slow ones too, which a deadline may not bear.
std::vector<grouping> without_slowest(scheduler::layout_book& book, const grouping& whole) {
  auto lines = choose_layouts(book, whole);
  std::stable_sort(lines.begin(), lines.end(), [](const auto& a, const auto& b) {
    return a.layout->latency_s > b.layout->latency_s;
  });
  std::vector<grouping> found;
  const auto step = std::max<std::size_t>(1, lines.size() / 8);
  for (std::size_t left_out = step; left_out < lines.size(); left_out += step) {
    grouping made;
    for (std::size_t i = left_out; i < lines.size(); ++i)
      made.genes.push_back(whole.genes[lines[i].gene]);
    found.push_back(std::move(made));
  }
  return found;
}

/// Simulated values of one search, by what is simulated: groupings that lay out to the same
/// pipelines are one. For a single thread.
class remembered {
public:
  using key = std::vector<const scheduler::group_layout*>;

  /// What identifies the grouping among those of the book.
  static key of(scheduler::layout_book& book, const grouping& it, int most_replicas) {
    key found;
    for (const auto& one : choose_layouts(book, it, most_replicas))
      found.push_back(one.layout);
    std::sort(found.begin(), found.end());
    return found;
  }

  /// The value under that key, judged where it is not known or was given up at a higher floor.
  template <class Judge>
  double value(const key& what, double floor, Judge&& judge) {
    const auto [at, fresh] = known_.try_emplace(what);
    if (fresh || (at->second.value == -infinity && at->second.floor > floor))
      at->second = {floor, judge()};
    return at->second.value;
  }

  void set(const key& what, double value) { known_[what] = {-infinity, value}; }

private:
  struct judged {
    double floor = 0, value = 0;
  };
  std::map<key, judged> known_;
};

/// Judges in rounds of one candidate a thread, each with what the rounds before reached as its
/// floor, so that threads do not change the outcome. The first `always` whatever the time.
template <class Value, class Over>
void judge_in_rounds(std::vector<candidate>& all, int threads, std::size_t always, Value&& value,
                     Over&& over) {
  double best = -infinity;
  const auto width = static_cast<std::size_t>(threads);
  for (std::size_t from = 0; from < all.size() && (from < always || !over()); from += width) {
    const double floor = best == -infinity ? best : best - near * std::abs(best);
    const auto count = std::min(width, all.size() - from);
    in_parallel(count, threads, [&](std::size_t i) {
      auto& one = all[from + i];
      one.value = value(one, floor);
    });
    for (std::size_t i = from; i < from + count; ++i)
      best = std::max(best, all[i].value);
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const candidate& a, const candidate& b) { return a.value > b.value; });
  std::erase_if(all, [](const candidate& one) { return one.value == -infinity; });
}

} // namespace

batched_found search_batched(const input_flags& flags, const solve_flags& how,
                             const planning_inputs& inputs,
                             const scheduler::search_setting& setting,
                             const scheduler::layout_setting& layouts) {
  const auto start = steady::now();
  const auto since = [&] { return std::chrono::duration<double>(steady::now() - start).count(); };
  const auto sizes = assumptions(flags);
  std::vector<std::unique_ptr<scheduler::cost_model>> costs;
  std::vector<candidate> candidates;
  batched_found found;
  for (std::size_t s = 0; s < sizes.size() && !(interrupted() && !candidates.empty()); ++s) {
    costs.push_back(costs_for(flags, inputs, sizes[s].size, sizes[s].sequences));
    auto forms = setting;
    forms.iterations = std::max(200, how.iterations / static_cast<int>(sizes.size()));
    forms.requests = forms.final_requests = form_requests;
    const auto allowed = layouts_for(layouts, sizes[s]);
    const auto proposed =
        search_islands(*costs[s], inputs.workload, forms, allowed, how.islands,
                       how.seconds * forms_end / static_cast<double>(sizes.size()), false);
    found.told.iterations += proposed.iterations;
    found.told.evaluations += proposed.evaluations;
    scheduler::layout_book book(*costs[s], inputs.workload.kinds, allowed);
    auto offered = setting.extra_seeds;
    offered.insert(offered.end(), proposed.ranked.begin(),
                   proposed.ranked.begin() +
                       static_cast<std::ptrdiff_t>(std::min(proposals, proposed.ranked.size())));
    const auto known = [&](const std::vector<scheduler::pipeline>& lines) {
      return std::any_of(candidates.begin(), candidates.end(),
                         [&](const auto& other) { return other.lines == lines; });
    };
    for (std::size_t i = 0; i < offered.size(); ++i)
      if (auto lines = place_grouping(book, offered[i], how.replicas);
          !lines.empty() && !known(lines))
        candidates.push_back({s, i, std::move(offered[i]), std::move(lines)});
    if (layouts.rule != scheduler::layout_rule::free) // is a baseline itself
      continue;
    for (auto& lines : scheduler::baseline_plans(*costs[s], inputs.workload.kinds, layouts.mode))
      if ((how.replicas == 0 || lines.size() <= static_cast<std::size_t>(how.replicas)) &&
          !known(lines)) {
        auto it = scheduler::as_seed(*inputs.pool, lines);
        candidates.push_back({s, baseline_rank, std::move(it), std::move(lines), -infinity, true});
      }
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
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const candidate& a, const candidate& b) { return a.rank < b.rank; });
  const auto proposed = candidates.size();
  judge_in_rounds(
      candidates, how.islands, 1,
      [&](const candidate& one, double floor) { return value(one.size, one.lines, floor, false); },
      [&] { return interrupted() || since() > how.seconds * judging_ends; });
  if (candidates.empty())
    return found;
  const auto answer = [&](candidate& best) {
    found.told.evaluations += static_cast<int>(proposed);
    found.told.best = best.it;
    found.told.value = best.value;
    found.lines = std::move(best.lines);
    found.concurrency = sizes[best.size].size;
    found.costs = std::move(costs[best.size]);
    return std::move(found);
  };
  if (interrupted() || since() > how.seconds) {
    found.told.ended = "time";
    return answer(candidates.front());
  }
  // On from there, as the engine batches, at the sizes that came out best: which one is right
  // depends on how the search goes on, since the closed form thinks of one size for all.
  std::vector<std::size_t> chosen;
  for (const auto& one : candidates)
    if (chosen.size() < refined_sizes &&
        std::find(chosen.begin(), chosen.end(), one.size) == chosen.end())
      chosen.push_back(one.size);
  std::vector<scheduler::search_result> refined(std::max(refined_sizes, chosen.size()));
  std::vector<std::vector<scheduler::pipeline>> placed(refined.size());
  if (how.progress)
    std::fprintf(stderr, "  %6.2f s  steps of %d sequences: %.6g as the engine batches\n", since(),
                 sizes[candidates.front().size].size, candidates.front().value);
  const auto turns = (refined.size() + static_cast<std::size_t>(how.islands) - 1) /
                     static_cast<std::size_t>(how.islands);
  std::mutex printing;
  in_parallel(refined.size(), how.islands, [&](std::size_t i) {
    const auto size = chosen[i % chosen.size()];
    scheduler::layout_book book(*costs[size], inputs.workload.kinds,
                                layouts_for(layouts, sizes[size]));
    // Each turn of the threads has its share of what time is left for the search.
    const auto turn = i / static_cast<std::size_t>(how.islands) + 1;
    const double ends =
        how.seconds * (judging_ends + (search_ends - judging_ends) * static_cast<double>(turn) /
                                          static_cast<double>(turns));
    auto mine = setting;
    mine.seed = setting.seed + 7919 * i;
    mine.iterations = how.iterations / steps_for_one;
    mine.stagnation = mine.epoch = std::max(1, mine.iterations);
    mine.ranked = finalists;
    mine.enough = infinity;
    mine.stop = [&] { return interrupted() || since() > ends; };
    mine.stop_ranking = [&] { return interrupted() || since() > how.seconds * ranking_ends; };
    mine.extra_seeds.clear();
    for (const auto& one : candidates)
      mine.extra_seeds.push_back(one.it);
    for (const auto& whole : {candidates.front().it, quick_seed(book)})
      for (auto& one : without_slowest(book, whole))
        mine.extra_seeds.push_back(std::move(one));
    if (how.progress)
      mine.progress = [&, size](int step, double reached) {
        const std::scoped_lock lock(printing);
        std::fprintf(stderr, "  %6.2f s  steps of %d, step %d: %.6g\n", since(), sizes[size].size,
                     step, reached);
      };
    remembered known;
    for (const auto& one : candidates)
      if (one.size == size && !one.baseline) // which lay their devices out in their own way
        known.set(remembered::of(book, one.it, how.replicas), one.value);
    mine.judge = [&](const grouping& it, double floor, bool fresh) {
      const auto judge = [&] {
        return value(size, place_grouping(book, it, how.replicas), floor, fresh);
      };
      return fresh ? judge() : known.value(remembered::of(book, it, how.replicas), floor, judge);
    };
    refined[i] = search_groups(book, inputs.workload, mine);
    placed[i] = place_grouping(book, refined[i].best, how.replicas);
  });
  // The winners of each size and the closed form's, on one stream that none was fitted to.
  std::vector<candidate> finals;
  for (std::size_t i = 0; i < refined.size(); ++i) {
    auto& one = refined[i];
    found.told.iterations += one.iterations;
    found.told.evaluations += one.evaluations;
    found.told.ended = one.ended;
    finals.push_back({chosen[i % chosen.size()], 0, std::move(one.best), std::move(placed[i])});
  }
  std::size_t others = 0, baselines = 0;
  for (const auto& one : candidates)
    if (++(one.baseline ? baselines : others) <= finalists)
      finals.push_back(one);
  const auto judged = finals.size();
  judge_in_rounds(
      finals, how.islands, 1,
      [&](const candidate& one, double floor) { return value(one.size, one.lines, floor, true); },
      [&] { return interrupted() || since() > how.seconds; });
  if (finals.empty()) // on the long stream none keeps its deadline
    finals.push_back(std::move(candidates.front()));
  found.told.evaluations += static_cast<int>(judged);
  return answer(finals.front());
}

} // namespace hexgen::tools
