// One placement of a replica: what a generation is. Travels as PREPARE.
#pragma once

#include "actors/core/wire.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace hexgen::actors {

struct placed_rank {
  std::string node;
  std::uint64_t incarnation = 0;
  std::uint32_t device = 0;
  double speed = 1; // relative: shares of KV heads and FFN leaves follow it
};

struct placed_stage {
  int first_layer = 0;
  int layers = 0;
  std::vector<placed_rank> ranks; // rank 0 leads
};

struct placement {
  std::uint64_t epoch = 0, replica = 0, generation = 0;
  std::vector<placed_stage> stages;
  wire::model_reference model;
  wire::serve_settings settings;

  /// Where the replica lives: the first stage's leader.
  [[nodiscard]] const placed_rank& home() const { return stages.front().ranks.front(); }
  [[nodiscard]] std::set<std::string> nodes() const;
  [[nodiscard]] bool uses(const std::string& node, std::uint64_t incarnation) const;
  /// The same layers on the same devices of the same processes: nothing has to move.
  [[nodiscard]] bool same_place(const placement& other) const;
  [[nodiscard]] bool shares_device(const placement& other) const;
  /// "n1/0[0-9] n2/0+n2/1[10-29]": for people.
  [[nodiscard]] std::string to_text() const;
};

/// The head of a PREPARE frame.
[[nodiscard]] std::string encode(const placement& p);
/// Throws wire::wire_error naming the field.
[[nodiscard]] placement decode_placement(std::string_view head);

} // namespace hexgen::actors
