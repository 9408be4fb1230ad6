#include "compute/sampling/byte_grammar.hpp"

#include <algorithm>
#include <stdexcept>

namespace hexgen::compute {

byte_grammar::state_id byte_grammar::add_state() {
  if (states_.size() >= max_states)
    throw std::invalid_argument("the schema is too large");
  states_.emplace_back();
  return static_cast<state_id>(states_.size() - 1);
}

byte_grammar::rule_id byte_grammar::add_rule() {
  const rule r{add_state(), add_state()};
  states_[static_cast<std::size_t>(r.end)].ends_rule = true;
  rules_.push_back(r);
  return static_cast<rule_id>(rules_.size() - 1);
}

void byte_grammar::add_bytes(state_id from, std::uint8_t low, std::uint8_t high, state_id to) {
  states_[static_cast<std::size_t>(from)].bytes.push_back({low, high, to});
}

void byte_grammar::add_empty(state_id from, state_id to) {
  states_[static_cast<std::size_t>(from)].empty.push_back(to);
}

void byte_grammar::add_call(state_id from, rule_id rule, state_id to) {
  states_[static_cast<std::size_t>(from)].calls.push_back({rule, to});
}

byte_grammar::state_id byte_grammar::add_literal(state_id from, std::string_view text) {
  for (const char c : text) {
    const auto next = add_state();
    add_bytes(from, static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(c), next);
    from = next;
  }
  return from;
}

byte_grammar::state_id byte_grammar::add_repeat(state_id from, rule_id rule, std::int64_t least,
                                                std::int64_t most) {
  if (least > static_cast<std::int64_t>(max_states) || most > static_cast<std::int64_t>(max_states))
    throw std::invalid_argument("the schema is too large");
  for (std::int64_t i = 0; i < least; ++i) {
    const auto next = add_state();
    add_call(from, rule, next);
    from = next;
  }
  const auto out = add_state();
  if (most < 0) {
    const auto loop = add_state();
    add_empty(from, loop);
    add_call(loop, rule, loop);
    add_empty(loop, out);
    return out;
  }
  for (std::int64_t i = least; i < most; ++i) {
    add_empty(from, out);
    const auto next = add_state();
    add_call(from, rule, next);
    from = next;
  }
  add_empty(from, out);
  return out;
}

// Depth first over "can be called before a byte was taken". Nothing that a rule calls first can be
// empty except white space, which calls nothing, so states behind a call need no look.
void byte_grammar::check_recursion() const {
  enum class mark : std::uint8_t { unseen, open, done };
  std::vector<mark> marks(rules_.size(), mark::unseen);
  const auto first_calls = [this](rule_id id) {
    std::vector<rule_id> calls;
    std::vector<state_id> todo = {rule_at(id).start};
    std::vector<state_id> seen = todo;
    while (!todo.empty()) {
      const auto s = todo.back();
      todo.pop_back();
      for (const auto& c : at(s).calls)
        calls.push_back(c.rule);
      for (const auto next : at(s).empty)
        if (std::find(seen.begin(), seen.end(), next) == seen.end()) {
          seen.push_back(next);
          todo.push_back(next);
        }
    }
    return calls;
  };
  struct visit {
    rule_id rule;
    std::vector<rule_id> calls;
    std::size_t next = 0;
  };
  for (std::size_t r = 0; r < rules_.size(); ++r) {
    if (marks[r] != mark::unseen)
      continue;
    std::vector<visit> path;
    const auto enter = [&](rule_id id) {
      marks[static_cast<std::size_t>(id)] = mark::open;
      path.push_back({id, first_calls(id), 0});
    };
    enter(static_cast<rule_id>(r));
    while (!path.empty()) {
      auto& top = path.back();
      if (top.next == top.calls.size()) {
        marks[static_cast<std::size_t>(top.rule)] = mark::done;
        path.pop_back();
        continue;
      }
      const auto called = top.calls[top.next++];
      if (marks[static_cast<std::size_t>(called)] == mark::open)
        throw std::invalid_argument("the schema refers to itself with no value in between");
      if (marks[static_cast<std::size_t>(called)] == mark::unseen)
        enter(called);
    }
  }
}

} // namespace hexgen::compute
