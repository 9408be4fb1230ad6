#include "tools/planning/evaluation.hpp"

#include "scheduler/baselines.hpp"
#include "scheduler/flow_placement.hpp"
#include "scheduler/upper_bound.hpp"
#include "tools/planning/helix_compare.hpp"
#include "tools/planning/portfolio.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>

namespace hexgen::tools {

namespace {

using scheduler::layout_rule;

constexpr double share = 0.99;
const std::vector<double> scales{3, 5, 8, 15};
/// Requests per second at which smallest scales are asked for; batching serves ten times as many.
const std::vector<double> paper_rates{1.02, 1.53, 2.00, 3.01, 3.94};
const std::vector<double> batched_rates{5, 10, 15, 20, 30};
const std::vector<double> batched_scales{3, 8}; // searched at
constexpr std::size_t half_rates = 3;           // of them, what the smaller pools serve too
const std::vector<double> petals_scales{15, 20, 30, 90};
constexpr int flow_steps = 20'000, batched_flow_steps = 3'000;

std::vector<double> ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> found;
  for (std::size_t i = 0; i < a.size(); ++i)
    found.push_back(a[i] / b[i]);
  return found;
}

void add_shapes(arm& into) {
  auto shapes = scheduler::possible_shapes(*into.inputs().costs);
  // Wide and short first: what they reach lets figures give the deep ones up at once.
  std::reverse(shapes.begin(), shapes.end());
  for (const auto& shape : shapes)
    into.add(scheduler::one_shape(*into.inputs().costs, shape.degree, shape.stages));
}

/// Seconds of one request (128, 64) on the case study's layouts: slow arm over asymmetric arm.
double case_study(const input_flags& flags, const std::string& cluster,
                  const std::vector<std::pair<int, int>>& slow) {
  auto one = flags;
  one.cluster = cluster;
  one.workload.clear();
  one.prompt_tokens = 128;
  one.output_tokens = 64;
  const auto inputs = load_inputs(one);
  const auto time = [&](const std::vector<std::pair<int, int>>& stages) {
    scheduler::pipeline line;
    int device = 0, layer = 0;
    for (const auto& [degree, layers] : stages) {
      scheduler::stage made;
      for (int i = 0; i < degree; ++i)
        made.devices.push_back(device++);
      made.first_layer = layer;
      made.layers = layers;
      layer += layers;
      line.push_back(std::move(made));
    }
    return mean_latency(*inputs, line);
  };
  return time(slow) / time({{4, 48}, {2, 20}, {2, 12}});
}

/// The pool without its last four devices of the first node, as when four GPUs go offline.
config::cluster without_four(config::cluster cluster) {
  int left = 4;
  for (auto& group : cluster.nodes.front().devices) {
    const int taken = std::min(left, group.count);
    group.count -= taken;
    left -= taken;
  }
  return cluster;
}

class evaluation {
public:
  evaluation(const evaluation_flags& flags, const evaluation_listener& listener)
      : flags_(flags), listener_(listener), paper_(flags.inputs.mode == "paper"),
        rates_(paper_ ? paper_rates : batched_rates) {}

  /// Arms in rising cost; every row follows what it needs.
  void run() {
    if (flags_.part != "helix") {
      homogeneous();
      half_price();
      full_price();
      capacities();
      asymmetry();
      offline();
    }
    if (paper_ && flags_.part == "helix")
      throw std::invalid_argument("--part helix: its clusters are compared with --mode calibrated");
    if (paper_)
      study();
    else if (flags_.part != "paper")
      helix();
  }

private:
  const planning_inputs& load(const std::string& cluster) {
    auto one = flags_.inputs;
    one.cluster = cluster;
    inputs_.push_back(load_inputs(one));
    return *inputs_.back();
  }

  arm& add_arm(const planning_inputs& of, const std::string& name) {
    arms_.push_back(std::make_unique<arm>(name, flags_.inputs, of, flags_.requests));
    return *arms_.back();
  }

  arm& searched(const planning_inputs& of, const std::string& name, layout_rule rule,
                const std::vector<double>& at_scales, const std::vector<double>& at_rates) {
    auto& made = add_arm(of, name);
    made.search(at_scales, at_rates, rule, flags_.seconds_each, flags_.progress, listener_.doing);
    if (rule == layout_rule::free) { // which may be as regular as it likes
      made.include(shapes_of(of));
      made.include(petals_of(of));
    }
    return made;
  }
  arm& searched(const planning_inputs& of, const std::string& name,
                layout_rule rule = layout_rule::free) {
    // Batched, a search costs seconds, and these plans reach the other scales and rates too.
    return searched(of, name, rule, paper_ ? scales : batched_scales,
                    paper_ ? rates_ : std::vector<double>{});
  }

  arm& shapes_of(const planning_inputs& of) {
    auto& known = shapes_[&of];
    if (known == nullptr) {
      known = &add_arm(of, "one shape everywhere");
      add_shapes(*known);
    }
    return *known;
  }
  arm& petals_of(const planning_inputs& of) {
    auto& known = petals_[&of];
    if (known == nullptr) {
      known = &add_arm(of, "Petals-like");
      known->add(scheduler::pipeline_only(*of.costs));
    }
    return *known;
  }

  /// Computes and tells a row, with its spread over short traces where `on_trace(stream, i)` gives
  /// its i-th value. Nothing once Ctrl-C was pressed: a figure that it cut short is none.
  template <class Values, class OnTrace>
  void tell(const std::string& name, const char* expected, const char* paper, Values&& values,
            OnTrace&& on_trace) {
    if (interrupted())
      return;
    listener_.doing("counting: " + name);
    evaluation_row row{name, values(), paper_ ? expected : "", paper, {}};
    if constexpr (!std::is_null_pointer_v<std::remove_reference_t<OnTrace>>)
      if (paper_)
        row.spread = spread(row.values.size(), on_trace);
    if (!interrupted())
      listener_.row(row);
  }
  template <class Values>
  void tell(const std::string& name, const char* expected, const char* paper, Values&& values) {
    tell(name, expected, paper, values, nullptr);
  }

  /// Tenth to ninetieth percentile of every value.
  template <class OnTrace>
  std::string spread(std::size_t count, OnTrace&& on_trace) {
    if (short_.empty())
      for (std::size_t i = 0; i < short_traces; ++i)
        short_.push_back(scheduler::make_stream(inputs_.front()->workload, short_trace_requests,
                                                flags_.inputs.seed + 5000 + i));
    std::string all;
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<double> found;
      for (const auto& stream : short_)
        found.push_back(on_trace(stream, i));
      std::sort(found.begin(), found.end());
      char text[48];
      std::snprintf(text, sizeof text, "%s%.3g-%.3g", i == 0 ? "" : " / ", found[found.size() / 10],
                    found[found.size() - 1 - found.size() / 10]);
      all += text;
    }
    return all;
  }

  /// The arm's rates at the usual scales; kept, for ratios.
  std::vector<double> tell_rates(const arm& of, const std::string& name, const char* expected) {
    std::vector<double> found(scales.size());
    tell(
        "rate at 99 %, scale 3/5/8/15: " + name, expected, "",
        [&] { return found = of.largest_rates(scales, share); },
        [&](const auto& stream, std::size_t i) {
          return of.largest_rate(stream, scales[i], share);
        });
    return found;
  }
  std::vector<double> tell_rates(const arm& of, const char* expected) {
    return tell_rates(of, of.name(), expected);
  }

  void tell_scales(const arm& of, std::size_t count, const char* expected) {
    const std::vector<double> at(rates_.begin(),
                                 rates_.begin() + static_cast<std::ptrdiff_t>(count));
    tell(
        "smallest scale 99 %, rate " + joined(at) + ": " + of.name(), expected, "",
        [&] { return of.smallest_scales(at, share); },
        [&](const auto& stream, std::size_t i) { return of.smallest_scale(stream, at[i], share); });
  }

  void homogeneous() {
    const auto& pool = load("paper-homogeneous");
    auto& tp8 = add_arm(pool, "A100 2xTP8");
    tp8.add(scheduler::one_shape(*pool.costs, 8, 1));
    tp4_ = &add_arm(pool, "A100 4xTP4");
    tp4_->add(scheduler::one_shape(*pool.costs, 4, 1));
    tell("mean single request, A100 TP8 / TP4, s", "1.631 / 1.927", "", [&] {
      return std::vector{tp8.mean_latency(), tp4_->mean_latency()};
    });
    tp8_rates_ = tell_rates(tp8, "0.39 / 0.68 / 0.83 / 1.02");
    tp4_rates_ = tell_rates(*tp4_, "1.02 / 1.43 / 1.63 / 1.87");
    tell_scales(*tp4_, half_rates, "2.90 / 5.29 / 31");
    best_ = &searched(pool, "A100 best");
    best_->include(tp8);
    best_->include(*tp4_);
    best_rates_ = tell_rates(*best_, "1.02 / 1.63 / 2.00 / 2.29");
  }

  void half_price() {
    half_ = &searched(load("paper-half-price"), "half price");
    half_rates_ = tell_rates(*half_, "0.55 / 1.53 / 2.14 / 2.63");
    tell_scales(*half_, half_rates, "3.83 / 4.99 / 6.94");
    tell("rate ratio half / best A100", ">= 1.0 from scale 8", "parity",
         [&] { return ratio(half_rates_, best_rates_); });
  }

  void full_price() {
    const auto& pool = load("paper-full-price");
    even_ = &searched(pool, "full price, symmetric per pipeline", layout_rule::even);
    full_ = &searched(pool, "full price");
    full_->include(*even_);
    full_rates_ = tell_rates(*full_, "1.87 / 3.01 / 4.22 / 4.51");
    tell_scales(*full_, rates_.size(), "2.43 / 2.59 / 3.18 / 4.54 / 6.64");
    tell("rate ratio full / 4xTP4", ">= 2.0 from scale 5", "up to 4, mean 2",
         [&] { return ratio(full_rates_, tp4_rates_); });
    tell("rate ratio full / 2xTP8", ">= 3.8", "up to 4, mean 2",
         [&] { return ratio(full_rates_, tp8_rates_); });
    tell("rate ratio full / best A100", "1.6 - 2.1", "up to 4, mean 2",
         [&] { return ratio(full_rates_, best_rates_); });
    tell("deadline 4xTP4 / full at 30/50/75/90 % load", "0.71 / 1.16 / 1.84 / >=2.2",
         "up to 2.3, mean 1.5", [&] {
           const double base = tp4_->largest_rates({30}, share).front();
           const std::vector<double> loads{0.3 * base, 0.5 * base, 0.75 * base, 0.9 * base};
           return ratio(tp4_->smallest_scales(loads, share), full_->smallest_scales(loads, share));
         });
  }

  void capacities() {
    const std::vector<const arm*> pools{best_, half_, full_};
    const auto of_pools = [&](auto&& value) {
      std::vector<double> found;
      for (const auto* pool : pools)
        found.push_back(interrupted() ? 0 : value(pool->inputs()));
      return found;
    };
    tell("capacity, req/s: A100 4xTP4 / best / half / full", "2.08 / 2.56 / >=2.80 / >=4.85", "",
         [&] {
           return std::vector{tp4_->capacity(), best_->capacity(), half_->capacity(),
                              full_->capacity()};
         });
    const auto flows = [&](auto&& place) {
      return of_pools([&](const planning_inputs& inputs) {
        return best_flow(flags_.inputs, inputs, [&](const scheduler::cost_model& costs) {
          return place(costs, inputs.workload.kinds);
        });
      });
    };
    tell("capacity, req/s, Helix-like (shared layers, max flow): A100 / half / full", "", "", [&] {
      return flows([&](const auto& costs, const auto& kinds) {
        return scheduler::place_by_flow(costs, kinds, paper_ ? flow_steps : batched_flow_steps,
                                        flags_.inputs.seed);
      });
    });
    tell("capacity, req/s, Swarm-like (equal stages): A100 / half / full", "", "", [&] {
      return flows([](const auto& costs, const auto& kinds) {
        return scheduler::place_by_stages(costs, kinds);
      });
    });
    tell("upper bound, req/s: A100 / half / full", "", "", [&] {
      return of_pools([](const planning_inputs& inputs) {
        return scheduler::throughput_bound(*inputs.costs, inputs.workload.kinds);
      });
    });
  }

  void asymmetry() {
    const auto& shapes = shapes_of(full_->inputs());
    const auto shape_rates =
        tell_rates(shapes, "full price, one shape everywhere", "1.43 / 2.29 / 3.22 / 3.68");
    tell("rate ratio asymmetric / one shape: full", "1.0 - 1.5", "up to 2",
         [&] { return ratio(full_rates_, shape_rates); });
    tell("deadline one shape / asymmetric, rate " + joined(rates_) + ": full", "1.0 - 1.5",
         "up to 1.8", [&] {
           return ratio(shapes.smallest_scales(rates_, share),
                        full_->smallest_scales(rates_, share));
         });
    tell("rate ratio asymmetric / one shape: half", "1.0 - 1.5", "up to 2", [&] {
      return ratio(half_rates_, shapes_of(half_->inputs()).largest_rates(scales, share));
    });
    tell("rate ratio asymmetric / symmetric per pipeline: full", "1.0 - 1.1", "up to 2",
         [&] { return ratio(full_rates_, even_->largest_rates(scales, share)); });
    const auto& petals = petals_of(half_->inputs());
    tell("rate ratio half / Petals-like, scale 15/20/30/90", "", "up to 10", [&] {
      return ratio(half_->largest_rates(petals_scales, share),
                   petals.largest_rates(petals_scales, share));
    });
  }

  /// GPUs leave: what a new search reaches of the full pool's rate.
  void offline() {
    auto one = flags_.inputs;
    one.cluster = "paper-full-price";
    std::vector<double> rate{full_rates_[1]};
    auto left = full_->inputs().cluster;
    std::vector<const arm*> pools;
    for (const char* name : {"full price, 4 GPUs offline", "full price, 8 GPUs offline"}) {
      left = without_four(left);
      inputs_.push_back(load_inputs(one, left));
      pools.push_back(&searched(*inputs_.back(), name, layout_rule::free, {scales[1]}, {}));
    }
    tell("rate at 99 %, scale 5: full / 4 / 8 GPUs offline", "", "small drop", [&] {
      for (const auto* pool : pools)
        rate.push_back(pool->largest_rates({scales[1]}, share).front());
      return rate;
    });
  }

  void study() {
    tell("case study: tuned PP8 over [4,2,2] 48/20/12, 1 ms", "2.41", "2", [&] {
      return std::vector{
          case_study(flags_.inputs, "paper-case-study",
                     {{1, 13}, {1, 13}, {1, 13}, {1, 13}, {1, 8}, {1, 8}, {1, 6}, {1, 6}})};
    });
    tell("case study: PP2xTP4 40/40 over [4,2,2], 5 ms", "19.7", "19", [&] {
      return std::vector{case_study(flags_.inputs, "paper-case-study-5ms", {{4, 40}, {4, 40}})};
    });
  }

  /// Llama-2-70B, offline, on Helix's clusters and profiled tables. The last column is Helix's.
  void helix() {
    const struct {
      const char *name, *cluster;
      double helix, swarm, separate;
    } clusters[] = {{"24 nodes, one region", "helix-24-single", 252.1, 124.7, 124.3},
                    {"24 nodes, three regions", "helix-24-geo", 98.0, 51.9, 61.9},
                    {"42 nodes", "helix-42", 645.6, 473.2, 219.3}};
    for (const auto& one : clusters) {
      if (interrupted())
        return;
      auto flags = flags_.inputs;
      flags.cluster = one.cluster;
      flags.model = "llama-2-70b";
      flags.workload = "azure-conversation";
      flags.max_num_seqs = std::max(flags.max_num_seqs, 1024); // Helix bounds KV, not sequences
      listener_.doing(std::string("Helix's ") + one.name);
      const auto found = compare_offline(flags, flags_.seconds_each, flags_.progress);
      const std::string name = one.name;
      tell(name + ", tokens/s: ours / each type alone, simulated", "",
           ("Helix " + joined({one.helix}) + " / alone " + joined({one.separate})).c_str(), [&] {
             return std::vector{found.ours, found.separate};
           });
      tell(name + ", tokens/s: Helix-like / Swarm-like placement, by flow", "",
           ("Helix " + joined({one.helix}) + " / Swarm " + joined({one.swarm})).c_str(), [&] {
             return std::vector{found.shared_flow, found.stages_flow};
           });
      tell(name + ", by flow alone: Helix-like / each type apart, Helix-like / Swarm-like", "",
           ("Helix's " + joined({one.helix / one.separate, one.helix / one.swarm})).c_str(), [&] {
             return std::vector{found.shared_flow / found.separate_flow,
                                found.shared_flow / found.stages_flow};
           });
      tell(name + ", ratio ours / alone, ours / Swarm-like", "",
           ("Helix's " + joined({one.helix / one.separate, one.helix / one.swarm})).c_str(), [&] {
             return std::vector{found.ours / found.separate, found.ours / found.stages_flow};
           });
    }
  }

  const evaluation_flags& flags_;
  const evaluation_listener& listener_;
  bool paper_;
  const std::vector<double>& rates_;
  std::vector<scheduler::request_stream> short_;
  std::vector<std::unique_ptr<planning_inputs>> inputs_;
  std::vector<std::unique_ptr<arm>> arms_;
  arm *tp4_ = nullptr, *best_ = nullptr, *half_ = nullptr, *even_ = nullptr, *full_ = nullptr;
  std::map<const planning_inputs*, arm*> shapes_, petals_;
  std::vector<double> tp8_rates_, tp4_rates_, best_rates_, half_rates_, full_rates_;
};

} // namespace

std::string joined(const std::vector<double>& values) {
  std::string text;
  for (const double value : values) {
    char one[32];
    std::snprintf(one, sizeof one, value >= 1000 ? "%s%.0f" : "%s%.3g", text.empty() ? "" : " / ",
                  value);
    text += one;
  }
  return text;
}

void evaluate(const evaluation_flags& flags, const evaluation_listener& listener) {
  evaluation(flags, listener).run();
}

} // namespace hexgen::tools
