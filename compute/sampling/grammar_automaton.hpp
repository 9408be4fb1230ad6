// A byte_grammar run as a lazily built automaton over sets of stacks, with masks over tokens.
#pragma once

#include "compute/sampling/byte_grammar.hpp"
#include "compute/sampling/token_trie.hpp"
#include "compute/tokenizer.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hexgen::compute {

/// States, transitions and masks are made when first needed and shared by all sequences of the
/// grammar. The caller holds mutex() around every use. Memory is bounded: sweep() forgets all
/// states when there are many, and the epoch tells that ids of states are void.
class grammar_automaton {
public:
  using set_id = std::int32_t;
  using mask_bits = std::vector<std::uint64_t>;
  static constexpr set_id dead = -1;

  grammar_automaton(byte_grammar grammar, std::shared_ptr<const tokenizer> tokens);

  [[nodiscard]] std::mutex& mutex() { return mutex_; }
  void sweep();
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
  [[nodiscard]] set_id start();
  [[nodiscard]] set_id step(set_id from, std::uint8_t byte);
  [[nodiscard]] bool accepting(set_id id) const;
  /// One bit a token: it may come in this state. Valid until the next call of mask() or sweep().
  [[nodiscard]] const mask_bits& mask(set_id id);
  [[nodiscard]] const tokenizer& tokens() const { return *tokens_; }

private:
  // Where one reading of the text stands: a state, and the returns that are open.
  struct place {
    byte_grammar::state_id state;
    std::int32_t frame;
    bool operator==(const place&) const = default;
    auto operator<=>(const place&) const = default;
  };
  struct frame {
    byte_grammar::state_id back;
    std::int32_t parent;
    std::int32_t depth;
  };
  struct place_set {
    std::vector<place> places; // sorted, only states with bytes to take
    bool accepting = false;
    std::array<set_id, 256> next{};
  };
  struct places_hash {
    std::size_t operator()(const std::vector<place>& places) const;
  };

  set_id intern(std::vector<place> seeds);
  std::int32_t push_frame(byte_grammar::state_id back, std::int32_t parent);

  byte_grammar grammar_;
  std::shared_ptr<const tokenizer> tokens_;
  std::shared_ptr<const token_trie> trie_;
  std::mutex mutex_;
  std::uint64_t epoch_ = 1;
  std::vector<frame> frames_;
  std::unordered_map<std::uint64_t, std::int32_t> frame_ids_;
  std::vector<std::unique_ptr<place_set>> sets_;
  // Two maps, for the same places can accept or not.
  std::array<std::unordered_map<std::vector<place>, set_id, places_hash>, 2> set_ids_;
  std::unordered_map<set_id, mask_bits> masks_;
};

} // namespace hexgen::compute
