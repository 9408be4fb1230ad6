// A model of nothing but memory: each position's KV is a hash of all tokens up to it, so that a
// wrong block, a stale one or a wrong token changes every later answer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace hexgen::tests {

inline constexpr int fake_block_tokens = 16;

[[nodiscard]] inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a ^ (b + 0x9e3779b97f4a7c15ULL + (a << 6U) + (a >> 2U));
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31U);
}

inline constexpr std::uint64_t fake_root = 0x1234;

[[nodiscard]] inline std::uint64_t fake_input(std::int32_t id) {
  return static_cast<std::uint64_t>(id) + 1;
}

/// The hash after `ids`, continuing from `from`.
[[nodiscard]] inline std::uint64_t fake_hash(std::span<const std::int32_t> ids,
                                             std::uint64_t from = fake_root) {
  for (const auto id : ids)
    from = mix(from, fake_input(id));
  return from;
}

/// The token that follows: a pure function of everything before it and of the choice's number.
[[nodiscard]] inline std::int32_t fake_token(std::uint64_t hash, std::uint64_t choice, int vocab) {
  return static_cast<std::int32_t>(mix(hash, choice + 77) % static_cast<std::uint64_t>(vocab));
}

/// One stage's KV pool.
class fake_kv {
public:
  explicit fake_kv(std::uint32_t blocks)
      : slots_(static_cast<std::size_t>(blocks) * fake_block_tokens) {}

  void copy(std::uint32_t from, std::uint32_t to) {
    for (std::size_t i = 0; i < fake_block_tokens; ++i)
      slots_.at(std::size_t{to} * fake_block_tokens + i) =
          slots_.at(std::size_t{from} * fake_block_tokens + i);
  }

  /// Writes the run's positions: each becomes the hash of its input and of all before it, which is
  /// appended to `after`. False when what the blocks hold before the run is not one sequence.
  [[nodiscard]] bool run(int position, std::span<const std::uint64_t> inputs,
                         std::span<const std::uint32_t> blocks, std::vector<std::uint64_t>& after) {
    std::uint64_t before = fake_root;
    for (int p = 0; p < position; ++p) {
      const slot& s = at(p, blocks);
      if (s.before != before)
        return false;
      before = s.after;
    }
    for (const auto input : inputs) {
      slot& s = at(position++, blocks);
      s = {before, mix(before, input)};
      before = s.after;
      after.push_back(before);
    }
    return true;
  }

  /// The same over token ids. Returns the last hash.
  [[nodiscard]] std::optional<std::uint64_t> run(int position, std::span<const std::int32_t> ids,
                                                 std::span<const std::uint32_t> blocks) {
    std::vector<std::uint64_t> inputs, after;
    for (const auto id : ids)
      inputs.push_back(fake_input(id));
    if (!run(position, inputs, blocks, after))
      return std::nullopt;
    return after.back();
  }

private:
  struct slot {
    std::uint64_t before = 0, after = 0;
  };
  slot& at(int position, std::span<const std::uint32_t> blocks) {
    const auto p = static_cast<std::size_t>(position);
    return slots_.at(std::size_t{blocks[p / fake_block_tokens]} * fake_block_tokens +
                     p % fake_block_tokens);
  }
  std::vector<slot> slots_;
};

} // namespace hexgen::tests
