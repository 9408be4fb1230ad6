#include "compute/sampling/pattern.hpp"

#include "compute/text/unicode.hpp"

#include <bitset>
#include <stdexcept>
#include <string>

namespace hexgen::compute {

namespace {

using state_id = byte_grammar::state_id;

constexpr int max_depth = 50;
constexpr std::size_t max_count = 1000;

// ASCII characters, and whether all others belong as well.
struct character_set {
  std::bitset<128> ascii;
  bool others = false;

  void add_range(unsigned low, unsigned high) {
    for (auto c = low; c <= high; ++c)
      ascii.set(c);
  }
  void add(const character_set& more) {
    ascii |= more.ascii;
    others = others || more.others;
  }
  void invert() {
    ascii.flip();
    others = !others;
  }
};

class compiler {
public:
  compiler(byte_grammar& grammar, json_rules& rules, std::string_view pattern)
      : g_(grammar), rules_(rules), text_(pattern) {}

  void run(state_id from, state_id to) {
    character_set any;
    any.invert();
    const bool from_start = take('^');
    if (!from_start)
      add_set(any, from, from);
    const auto begin = g_.add_state();
    g_.add_empty(from, begin);
    const auto end = alternatives(begin, 0, !from_start);
    if (at_ < text_.size())
      fail("unmatched )");
    g_.add_empty(end, to);
  }

private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::invalid_argument("pattern '" + std::string(text_) + "': " + what);
  }
  [[nodiscard]] bool more() const { return at_ < text_.size(); }
  [[nodiscard]] char peek() const { return text_[at_]; }
  bool take(char c) {
    if (!more() || peek() != c)
      return false;
    ++at_;
    return true;
  }

  // a|b|c; the state behind. `open`: the pattern has no ^, so that | at the top is as it reads.
  state_id alternatives(state_id from, int depth, bool open) {
    if (depth > max_depth)
      fail("groups are nested too deep");
    const auto out = g_.add_state();
    do {
      const auto begin = g_.add_state();
      g_.add_empty(from, begin);
      const auto end = sequence(begin, depth);
      bool to_end = false;
      if (depth == 0 && take('$')) {
        if (more() && peek() != '|')
          fail("$ is served only at the end");
        to_end = true;
      }
      if (depth == 0 && more() && peek() == '|' && (!open || to_end))
        fail("^ and $ are not served beside | outside a group");
      if (depth == 0 && !to_end) {
        character_set any;
        any.invert();
        const auto rest = g_.add_state();
        g_.add_empty(end, rest);
        add_set(any, rest, rest);
        g_.add_empty(rest, out);
      } else {
        g_.add_empty(end, out);
      }
    } while (take('|'));
    return out;
  }

  state_id sequence(state_id from, int depth) {
    while (more() && peek() != '|' && peek() != ')') {
      if (depth == 0 && peek() == '$')
        break;
      from = repeated(from, depth);
    }
    return from;
  }

  // An atom and its quantifier. The atom's text is compiled once for each copy.
  state_id repeated(state_id from, int depth) {
    const auto start = at_;
    const auto once = g_.add_state();
    g_.add_empty(from, once);
    auto end = atom(once, depth);
    const auto behind_atom = at_;
    std::size_t least = 1;
    std::size_t most = 1;
    bool unlimited = false;
    if (take('*')) {
      least = 0;
      unlimited = true;
    } else if (take('+')) {
      unlimited = true;
    } else if (take('?')) {
      least = 0;
    } else if (take('{')) {
      least = number();
      most = least;
      if (take(',')) {
        unlimited = more() && peek() == '}';
        most = unlimited ? least : number();
      }
      if (!take('}') || most < least)
        fail("{m,n} is malformed");
    }
    if (take('?') || (behind_atom != at_ && take('+')))
      fail("lazy and possessive quantifiers are not served");
    const auto behind = at_;
    const auto copy = [&](state_id begin) {
      at_ = start;
      const auto fresh = g_.add_state();
      g_.add_empty(begin, fresh);
      const auto e = atom(fresh, depth);
      at_ = behind;
      return e;
    };
    const auto out = g_.add_state();
    if (least == 0)
      g_.add_empty(from, out);
    if (unlimited) {
      for (std::size_t i = 1; i < least; ++i)
        end = copy(end);
      const auto loop = g_.add_state();
      g_.add_empty(end, loop);
      g_.add_empty(copy(loop), loop);
      g_.add_empty(loop, out);
      return out;
    }
    if (most == 0)
      return out;
    for (std::size_t i = 1; i < most; ++i) {
      if (i >= least)
        g_.add_empty(end, out);
      end = copy(end);
    }
    g_.add_empty(end, out);
    return out;
  }

  std::size_t number() {
    std::size_t n = 0;
    const auto start = at_;
    while (more() && peek() >= '0' && peek() <= '9' && n <= max_count)
      n = n * 10 + static_cast<std::size_t>(text_[at_++] - '0');
    if (at_ == start || n > max_count)
      fail("{m,n} is malformed or over 1,000");
    return n;
  }

  state_id atom(state_id from, int depth) {
    const char c = peek();
    if (c == '(') {
      ++at_;
      if (take('?') && !take(':'))
        fail("look-around and flags are not served");
      const auto end = alternatives(from, depth + 1, true);
      if (!take(')'))
        fail("unmatched (");
      return end;
    }
    const auto to = g_.add_state();
    if (static_cast<unsigned char>(c) >= 0x80) {
      const auto n = decode_utf8(text_.substr(at_)).bytes;
      if (n == 0)
        fail("is not UTF-8");
      g_.add_empty(g_.add_literal(from, text_.substr(at_, n)), to);
      at_ += n;
      return to;
    }
    if (c == '*' || c == '+' || c == '?' || c == '{' || c == '^' || c == '$')
      fail(std::string("'") + c + "' is not served here");
    character_set set;
    if (c == '[') {
      ++at_;
      set = bracket();
    } else if (c == '.') {
      ++at_;
      set.ascii.set('\n');
      set.ascii.set('\r');
      set.invert();
    } else {
      set = single();
    }
    add_set(set, from, to);
    return to;
  }

  // One character or escape that stands for a set.
  character_set single() {
    character_set set;
    const char c = text_[at_++];
    if (c != '\\') {
      if (static_cast<unsigned char>(c) >= 0x80)
        fail("characters beyond ASCII are not served in classes");
      set.ascii.set(static_cast<unsigned char>(c));
      return set;
    }
    if (!more())
      fail("ends in a backslash");
    const char e = text_[at_++];
    const char lower = static_cast<char>(e | 0x20);
    if (lower == 'd' || lower == 'w' || lower == 's') {
      if (lower == 's')
        for (const char s : {' ', '\t', '\n', '\r', '\f', '\v'})
          set.ascii.set(static_cast<unsigned char>(s));
      else
        set.add_range('0', '9');
      if (lower == 'w') {
        set.add_range('a', 'z');
        set.add_range('A', 'Z');
        set.ascii.set('_');
      }
      if (e != lower)
        set.invert();
    } else if (e == 'n' || e == 't' || e == 'r' || e == 'f') {
      set.ascii.set(e == 'n' ? '\n' : e == 't' ? '\t' : e == 'r' ? '\r' : '\f');
    } else if ((e >= '0' && e <= '9') || (lower >= 'a' && lower <= 'z') ||
               static_cast<unsigned char>(e) >= 0x80) {
      fail(std::string("escape \\") + e + " is not served");
    } else {
      set.ascii.set(static_cast<unsigned char>(e));
    }
    return set;
  }

  character_set bracket() {
    character_set set;
    const bool inverted = take('^');
    bool first = true;
    while (more() && (peek() != ']' || first)) {
      first = false;
      const auto low = single();
      if (at_ + 1 < text_.size() && peek() == '-' && text_[at_ + 1] != ']') {
        ++at_;
        const auto high = single();
        if (low.ascii.count() != 1 || high.ascii.count() != 1 || low.others || high.others)
          fail("a range needs two characters");
        const auto a = low.ascii._Find_first();
        const auto b = high.ascii._Find_first();
        if (a > b)
          fail("a range is upside down");
        set.add_range(static_cast<unsigned>(a), static_cast<unsigned>(b));
      } else {
        set.add(low);
      }
    }
    if (!take(']'))
      fail("unmatched [");
    if (inverted)
      set.invert();
    return set;
  }

  // The characters as JSON writes them between quotes.
  void add_set(const character_set& set, state_id from, state_id to) {
    constexpr std::string_view escaped = "\"\\\b\f\n\r\t";
    constexpr std::string_view escapes = "\"\\bfnrt";
    for (unsigned c = 0x20; c < 0x80; ++c) {
      if (!set.ascii[c] || c == '"' || c == '\\')
        continue;
      auto high = c;
      while (high + 1 < 0x80 && set.ascii[high + 1] && high + 1 != '"' && high + 1 != '\\')
        ++high;
      g_.add_bytes(from, static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(high), to);
      c = high;
    }
    state_id escape = -1;
    for (std::size_t i = 0; i < escaped.size(); ++i)
      if (set.ascii[static_cast<unsigned char>(escaped[i])]) {
        if (escape < 0)
          escape = g_.add_literal(from, "\\");
        const auto byte = static_cast<std::uint8_t>(escapes[i]);
        g_.add_bytes(escape, byte, byte, to);
      }
    if (set.others)
      rules_.add_beyond_ascii(from, to);
  }

  byte_grammar& g_;
  json_rules& rules_;
  std::string_view text_;
  std::size_t at_ = 0;
};

} // namespace

void add_pattern(byte_grammar& grammar, json_rules& rules, std::string_view pattern,
                 byte_grammar::state_id from, byte_grammar::state_id to) {
  if (pattern.size() > 4096)
    throw std::invalid_argument("pattern is longer than 4,096 bytes");
  const auto begin = grammar.add_state();
  grammar.add_empty(from, begin);
  compiler(grammar, rules, pattern).run(begin, to);
}

} // namespace hexgen::compute
