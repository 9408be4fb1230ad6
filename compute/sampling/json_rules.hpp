// The parts of JSON's grammar: white space, strings, numbers, and values of any kind.
#pragma once

#include "compute/sampling/byte_grammar.hpp"

#include <cstdint>
#include <map>

namespace hexgen::compute {

/// Adds rules to a grammar when they are first asked for. White space between values is bounded (a
/// space, or a line end and up to 20 spaces), and so are the digits of numbers (every parser can
/// hold them), for a model may not know when to stop.
class json_rules {
public:
  using rule_id = byte_grammar::rule_id;
  using state_id = byte_grammar::state_id;

  explicit json_rules(byte_grammar& grammar) : g_(grammar) {}

  [[nodiscard]] rule_id white_space(); // may be empty
  [[nodiscard]] rule_id space();       // nothing or one space
  [[nodiscard]] rule_id character();   // one character between quotes, escapes included
  [[nodiscard]] rule_id string();
  [[nodiscard]] rule_id integer();
  [[nodiscard]] rule_id number();
  [[nodiscard]] rule_id boolean();
  [[nodiscard]] rule_id null();
  [[nodiscard]] rule_id value();  // any
  [[nodiscard]] rule_id object(); // any
  [[nodiscard]] rule_id array();  // any

  /// One byte-for-byte UTF-8 character above U+007F.
  void add_beyond_ascii(state_id from, state_id to);
  /// The decimal forms of the integers in [low, high]; both within +-10^15.
  void add_integers(state_id from, std::int64_t low, std::int64_t high, state_id to);

private:
  enum class part : std::uint8_t {
    white_space,
    space,
    character,
    string,
    integer,
    number,
    boolean,
    null,
    value,
    object,
    array
  };
  // The rule of a part; `fresh` when it has just been made and must be filled.
  struct lookup {
    rule_id rule;
    state_id start, end;
    bool fresh;
  };
  lookup get(part p);
  void add_digits(state_id from, int least, int most, state_id to);
  void add_natural(state_id from, std::int64_t low, std::int64_t high, state_id to);
  void fill_members(const lookup& r, char open, char close, rule_id member);

  byte_grammar& g_;
  std::map<part, rule_id> rules_;
};

} // namespace hexgen::compute
