// What the blocks of a KV pool hold, as the last stage knows it.
#pragma once

#include "actors/core/wire.hpp"
#include "actors/data/device_worker.hpp"

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

namespace hexgen::actors {

/// The last stage's leader sees every step's tables, and the tokens that it samples. When the
/// replica is lost with its node, another one goes on from here; the other ranks tell what they
/// have written in steps that the last stage has not seen. Not thread-safe.
class known_tables {
public:
  void open(const wire::sequence_open& s);
  /// The step begins to write, and may not come to its end.
  void begins(const wire::step_message& m);
  /// It has run here: on the last stage, on every one.
  void ran(const wire::step_message& m);
  void sampled(std::uint64_t sequence, compute::token_id id);
  void close(std::uint64_t sequence) { sequences_.erase(sequence); }
  /// Of each sequence the full blocks whose content is certain: a table that another sequence has
  /// written into since is stale, its own sequence was sent away.
  [[nodiscard]] std::vector<kept_sequence> all() const;
  [[nodiscard]] std::uint64_t last_step() const { return last_step_; }
  /// Blocks by the last step that wrote them, of the `steps` begun last.
  [[nodiscard]] std::vector<written_block> written_in_last(std::uint64_t steps) const;

private:
  struct sequence {
    std::vector<compute::token_id> tokens;
    std::vector<std::uint32_t> blocks;
    std::size_t computed = 0; // positions
    std::uint64_t step = 0;   // its last
  };
  std::map<std::uint64_t, sequence> sequences_;
  std::uint64_t begun_ = 0, last_step_ = 0;
  std::unordered_map<std::uint32_t, std::uint64_t> written_; // block -> last step that wrote it
};

} // namespace hexgen::actors
