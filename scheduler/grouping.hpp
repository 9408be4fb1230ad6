// One individual of the search: which devices form which pipeline, laid out how.
#pragma once

#include "scheduler/group_layout.hpp"
#include "scheduler/random.hpp"

#include <vector>

namespace hexgen::scheduler {

/// A group and which of its layouts it uses: 0 is the quickest for one request, 1 the one with the
/// highest rate, between by share.
struct gene {
  device_group group;
  float choice = 0;
  bool operator==(const gene&) const = default;
};

/// Devices in no gene are idle; a group that cannot hold the model is idle too.
struct grouping {
  std::vector<gene> genes;
  bool operator==(const grouping&) const = default;
};

/// A usable gene's layout.
struct chosen_layout {
  std::size_t gene = 0;
  const group_layout* layout = nullptr;
  std::vector<int> slots;
};
/// The usable genes' layouts; of more than `most_replicas` those with the highest rates, unless
/// that is zero.
[[nodiscard]] std::vector<chosen_layout> choose_layouts(layout_book& book, const grouping& from,
                                                        int most_replicas = 0);

/// The same as pipelines of the pool's devices.
[[nodiscard]] std::vector<pipeline> place_grouping(layout_book& book, const grouping& from,
                                                   int most_replicas = 0);

/// Starting points: one group per machine (small ones gathered until they hold the model), chunks
/// of 8, 4, 2 and 1 device gathered inside a region, machines alike gathered wherever they are, one
/// group per region (k-means on the network finds the regions), each with quick, middle and
/// high-rate layouts.
[[nodiscard]] std::vector<grouping> seed_groupings(layout_book& book);

/// One random step: move devices, swap, merge, split, retire a group or choose another
/// layout. Groups stay inside
/// a region unless `across`. False when nothing could be changed.
[[nodiscard]] bool mutate(grouping& individual, const layout_book& book, random_source& random,
                          bool across);

/// All devices of the pool that no gene uses, as parts.
[[nodiscard]] device_group idle_parts(const pool& pool, const grouping& individual);

} // namespace hexgen::scheduler
