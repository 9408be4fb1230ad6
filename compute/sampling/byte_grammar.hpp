// A context-free grammar over bytes: rules are small automata that call each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace hexgen::compute {

/// Built once, then read-only. Every automaton of a rule leads from its start state to its end
/// state; a call runs another rule in between.
class byte_grammar {
public:
  using state_id = std::int32_t;
  using rule_id = std::int32_t;

  struct byte_edge {
    std::uint8_t low, high; // inclusive
    state_id to;
  };
  struct call_edge {
    rule_id rule;
    state_id back;
  };
  struct state {
    std::vector<byte_edge> bytes;
    std::vector<state_id> empty;
    std::vector<call_edge> calls;
    bool ends_rule = false;
  };
  struct rule {
    state_id start = 0;
    state_id end = 0;
  };

  /// More states than this are refused: a schema of a few lines can ask for millions.
  static constexpr std::size_t max_states = 200'000;

  /// Throws std::invalid_argument past max_states.
  state_id add_state();
  rule_id add_rule();
  void add_bytes(state_id from, std::uint8_t low, std::uint8_t high, state_id to);
  void add_empty(state_id from, state_id to);
  void add_call(state_id from, rule_id rule, state_id to);
  /// A chain of single bytes from `from`; its last state.
  state_id add_literal(state_id from, std::string_view text);
  /// `least` to `most` calls of `rule`; `most` < 0: no limit. The state behind them.
  state_id add_repeat(state_id from, rule_id rule, std::int64_t least, std::int64_t most);

  [[nodiscard]] const state& at(state_id id) const { return states_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const rule& rule_at(rule_id id) const {
    return rules_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] rule_id root() const { return root_; }
  void set_root(rule_id rule) { root_ = rule; }

  /// Throws std::invalid_argument when a rule can call itself before it has taken a byte.
  void check_recursion() const;

private:
  std::vector<state> states_;
  std::vector<rule> rules_;
  rule_id root_ = 0;
};

} // namespace hexgen::compute
