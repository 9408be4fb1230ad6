// What one pipeline can reach at best, found by trying all of them.
#pragma once

#include "scheduler/serving_cost.hpp"
#include "scheduler/serving_planner.hpp"

#include <algorithm>
#include <limits>
#include <vector>

namespace hexgen::scheduler::testing {

struct world {
  std::vector<serving_device> devices;
  std::vector<serving_link> links;
  serving_model model;
  serving_goal goal;
};

/// Tries every ordered list of same-node subsets, every split rule and every layer composition.
class brute_force {
public:
  explicit brute_force(const world& w) : costs_(w.devices, w.links, w.model, w.goal), w_(w) {
    extend(0, 0);
  }
  double best = std::numeric_limits<double>::infinity(); // seconds a request

private:
  struct placed {
    std::vector<std::size_t> devices;
    stage_split split;
  };

  void extend(unsigned used, int) {
    if (!stages_.empty())
      split_layers(0, w_.model.layers);
    for (unsigned set = 1; set < (1u << w_.devices.size()); ++set) {
      if ((set & used) != 0)
        continue;
      std::vector<std::size_t> members;
      bool same = true;
      for (std::size_t i = 0; i < w_.devices.size(); ++i)
        if ((set >> i & 1u) != 0) {
          members.push_back(i);
          same = same && w_.devices[i].node == w_.devices[members.front()].node;
        }
      if (!same)
        continue;
      // The leader is the device with the most memory.
      std::stable_sort(members.begin(), members.end(), [&](std::size_t a, std::size_t b) {
        return w_.devices[a].memory_bytes > w_.devices[b].memory_bytes;
      });
      for (auto& split : costs_.splits(members)) {
        stages_.push_back({members, split});
        layers_.push_back(0);
        extend(used | set, 0);
        stages_.pop_back();
        layers_.pop_back();
      }
    }
  }

  void split_layers(std::size_t j, int left) {
    const bool last = j + 1 == stages_.size();
    if (left < static_cast<int>(stages_.size() - j))
      return;
    for (int count = last ? left : 1; count <= left; ++count) {
      for (std::size_t rank = 0; rank < stages_[j].devices.size(); ++rank)
        if (costs_.stage_bytes(stages_[j].split, rank, count, j == 0, last) >
            static_cast<double>(w_.devices[stages_[j].devices[rank]].memory_bytes))
          return;
      layers_[j] = count;
      if (last)
        price();
      else
        split_layers(j + 1, left - count);
    }
  }

  void price() {
    const double further = w_.goal.output_tokens - 1;
    double total = 0;
    for (std::size_t j = 0; j < stages_.size(); ++j) {
      total += layers_[j] * (stages_[j].split.prefill_us + further * stages_[j].split.decode_us);
      const int here = costs_.node_of(stages_[j].devices.front());
      const int next = costs_.node_of(stages_[(j + 1) % stages_.size()].devices.front());
      if (j + 1 < stages_.size())
        total += costs_.hop_us(here, next, 4.0 * w_.model.hidden * w_.goal.prompt_tokens) +
                 further * costs_.hop_us(here, next, 4.0 * w_.model.hidden);
      else {
        total += (1 + further) * stages_[j].split.head_us;
        if (here != next)
          total += (1 + further) * costs_.hop_us(here, next, 4);
      }
    }
    best = std::min(best, total * 1e-6);
  }

  serving_costs costs_;
  const world& w_;
  std::vector<placed> stages_;
  std::vector<int> layers_;
};

} // namespace hexgen::scheduler::testing
