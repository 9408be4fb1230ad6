// Products with quantised weights: per block of 32 columns one exact integer dot, converted once,
// one fused multiply-add per term (scale; minimum), blocks in sequence.
#pragma once

#include "compute/cpu/product_kernels.hpp"

#include <algorithm>
#include <utility>

namespace hexgen::compute {
namespace {

/// IQ4_NL's values, moved up by 128 so that they are unsigned.
alignas(16) constexpr std::uint8_t nibble_values[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                        129, 141, 153, 166, 181, 197, 217, 241};

/// How far ahead of the dots weights are fetched, block for block through groups and matrices (they
/// follow one another in memory). With one token memory sets the pace: 8 KiB ahead a product reads
/// as fast as a plain loop (26 GB/s), without it at half of that; with many tokens it costs
/// nothing.
constexpr std::size_t read_ahead_bytes = 8192;

/// The scales of one block, per lane. Two scales when its halves differ (Q6_K).
template <class L, scale_kind Kind>
struct block_scales {
  static constexpr bool has_minimum = Kind == scale_kind::half_min || Kind == scale_kind::super_min;
  static constexpr bool two_halves = Kind == scale_kind::super_pair;
  typename L::f scale;
  typename L::f second; // minimum, or the scale of columns 16-31

  block_scales() = default;
  explicit block_scales(const std::byte* p) {
    constexpr std::size_t halves = lane_rows * 2;
    scale = L::load_half(p);
    if constexpr (Kind == scale_kind::half_min) {
      second = L::load_half(p + halves);
    } else if constexpr (Kind == scale_kind::super_min) {
      scale = L::mul(scale, L::load_int8(p + 2 * halves));
      second = L::mul(L::load_half(p + halves), L::load_int8(p + 2 * halves + lane_rows));
    } else if constexpr (Kind == scale_kind::super_pair) {
      second = L::mul(scale, L::load_int8(p + halves + lane_rows));
      scale = L::mul(scale, L::load_int8(p + halves));
    }
  }
};

template <class L, code_kind Codes, scale_kind Scales, code_bits Bits>
struct quantised_product {
  using scales = block_scales<L, Scales>;

  template <int Tokens>
  static void leaf(const product& p, const std::byte* group, int token, leaf_columns columns,
                   typename L::f (&sums)[Tokens]) {
    const auto first = static_cast<std::size_t>(columns.begin / block_columns);
    const auto last = static_cast<std::size_t>(columns.end / block_columns);
    if constexpr (Tokens >= tile_tokens && has_tiles)
      return add_tiles(p, group, token, first, last, sums);
    for (int t = 0; t < Tokens; ++t)
      sums[t] = L::set(0);
    const operands of(p, group, token);
    for (std::size_t b = first; b < last; ++b) {
      const scales s(of.scales(b));
      of.fetch_ahead(b);
      const block_meta* m = of.meta(b);
      const typename L::template codes<Codes, Bits> weights(of.weights(b));
#pragma GCC unroll 16
      for (int t = 0; t < Tokens; ++t) {
        const std::byte* at = of.inputs(b) + static_cast<std::size_t>(t) * block_code_bytes;
        if constexpr (scales::two_halves)
          add_block(s, m[t], p.weights.zero, weights.template dot<0, 4>(at),
                    weights.template dot<4, 8>(at), sums[t]);
        else
          add_block(s, m[t], p.weights.zero, weights.template dot<0, 8>(at), typename L::ints(),
                    sums[t]);
      }
    }
  }

private:
  static constexpr bool has_tiles = requires {
    typename L::template tile_dots<Bits>;
  };

  /// Where a block's things lie.
  class operands {
  public:
    operands(const product& p, const std::byte* group, int token)
        : weights_(group), scales_(group + p.weights.scales_offset) {
      const std::size_t row = block_index(token, 0, p.inputs.blocks);
      inputs_ = p.inputs.codes + row * block_code_bytes;
      meta_ = p.inputs.meta + row;
    }
    [[nodiscard]] const std::byte* weights(std::size_t b) const { return weights_ + code_step * b; }
    [[nodiscard]] const std::byte* scales(std::size_t b) const { return scales_ + scale_step * b; }
    [[nodiscard]] const std::byte* inputs(std::size_t b) const {
      return inputs_ + b * tile_tokens * block_code_bytes;
    }
    [[nodiscard]] const block_meta* meta(std::size_t b) const { return meta_ + b * tile_tokens; }
    void fetch_ahead(std::size_t b) const {
      const std::byte* ahead = weights_ + read_ahead_bytes + (code_step + scale_step) * b;
      for (std::size_t line = 0; line < code_step + scale_step; line += 64)
        __builtin_prefetch(ahead + line);
    }

  private:
    static constexpr std::size_t code_step =
        lane_rows * block_columns / (Codes == code_kind::byte ? 1 : 2);
    static constexpr std::size_t scale_step = lane_rows * (Scales == scale_kind::half        ? 2
                                                           : Scales == scale_kind::super_min ? 6
                                                                                             : 4);
    const std::byte* weights_;
    const std::byte* scales_;
    const std::byte* inputs_;
    const block_meta* meta_;
  };

  // What stays in the first cache.
  static constexpr std::size_t unpacked_bytes = Bits == code_bits::twelve ? 1024 : 512;
  static constexpr std::size_t unpacked_blocks = 12288 / unpacked_bytes;

  /// Blocks [first, last) of a leaf's weights where tiles can be loaded from, and their scales.
  struct unpacked {
    std::size_t first = 0;
    std::size_t last = 0;
    alignas(64) std::byte buffer[unpacked_blocks][unpacked_bytes];
    const std::byte* words[unpacked_blocks];
    block_scales<L, Scales> scales[unpacked_blocks];
  };

  /// A leaf with the matrix unit. Its weights are unpacked once for all tokens.
  template <int Tokens>
  static void add_tiles(const product& p, const std::byte* group, int token, std::size_t first,
                        std::size_t last, typename L::f (&sums)[Tokens]) {
    const operands of(p, group, token);
    unpacked some;
    const std::size_t rounds = (last - first + unpacked_blocks - 1) / unpacked_blocks;
    const std::size_t some_blocks = (last - first + rounds - 1) / std::max<std::size_t>(rounds, 1);
    for (some.first = first; some.first < last; some.first = some.last) {
      some.last = std::min(last, some.first + some_blocks);
      for (std::size_t b = some.first, i = 0; b < some.last; ++b, ++i) {
        some.words[i] = L::template tile_words<Codes, Bits>(of.weights(b), some.buffer[i]);
        some.scales[i] = scales(of.scales(b));
      }
      add_some<Tokens / tile_tokens>(p, of, some, some.first == first, sums);
    }
  }

  /// A block of a tile: those of `some` one by one, tile after tile.
  struct place {
    const std::byte* codes;
    const block_meta* meta;
    std::size_t count; // blocks of `some`
    std::size_t skip;  // blocks of a tile that are not among them
    std::size_t block = 0;
    int tiles; // with this one's

    place(const operands& of, const unpacked& some, int blocks, int all_tiles)
        : codes(of.inputs(some.first)), meta(of.meta(some.first)), count(some.last - some.first),
          skip(static_cast<std::size_t>(blocks) - count), tiles(all_tiles) {}

    /// Whether a tile ended.
    [[gnu::always_inline]] bool advance() {
      move(1);
      if (++block < count)
        return false;
      block = 0;
      move(skip);
      --tiles;
      return true;
    }

  private:
    [[gnu::always_inline]] void move(std::size_t blocks) {
      codes += blocks * tile_tokens * block_code_bytes;
      meta += blocks * tile_tokens;
    }
  };

  /// The unit answers late: while a block's dots are added, those of the next one come to memory
  /// and those of the one after it are under way, also from one tile to the next. A store that
  /// waits for its product holds up all that follows. (Halves take all of the unit's tiles: there
  /// only one block is under way.)
  template <int Tiles>
  static void add_some(const product& p, const operands& of, const unpacked& some, bool first,
                       typename L::f* sums) {
    typename L::template tile_dots<Bits> dots[2][scales::two_halves ? 2 : 1];
    tile_sums own;
    place at(of, some, p.inputs.blocks, Tiles);
    place ahead = at;
    own.load(first ? nullptr : sums, every_token);
    start_block<0>(of, some, ahead);
    store_block<0>(dots[0]);
    if (!scales::two_halves)
      start_block<1>(of, some, ahead);
    const auto add = [&](const auto& ready) __attribute__((always_inline)) {
      own.add(some.scales[at.block], at.meta, p.weights.zero, ready, every_token);
      if (!at.advance())
        return;
      own.store(sums, every_token);
      sums += tile_tokens;
      if (at.tiles != 0)
        own.load(first ? nullptr : sums, every_token);
    };
    // The last store or two have nothing new to store, which does no harm.
    for (;;) {
      start_block<0>(of, some, ahead);
      store_block<1>(dots[1]);
      add(dots[0]);
      if (at.tiles == 0)
        break;
      start_block<1>(of, some, ahead);
      store_block<0>(dots[0]);
      add(dots[1]);
      if (at.tiles == 0)
        break;
    }
  }

  /// The next product, if any is left. Memory is read ahead during the first of the tiles, while
  /// the unit works, not in a burst.
  template <int Slot>
  [[gnu::always_inline]] static void start_block(const operands& of, const unpacked& some,
                                                 place& ahead) {
    if (ahead.tiles == 0)
      return;
    const std::byte* words = some.words[ahead.block];
    if (ahead.codes < of.inputs(some.last))
      of.fetch_ahead(some.first + ahead.block);
    if constexpr (scales::two_halves) {
      L::template multiply_tile<0, Bits>(ahead.codes, words);
      L::template multiply_tile<1, Bits>(ahead.codes + 16, words + 256);
    } else {
      L::template multiply_tile<Slot, Bits>(ahead.codes, words);
    }
    ahead.advance();
  }

  template <int Slot, class Dots>
  [[gnu::always_inline]] static void store_block(Dots& dots) {
    if constexpr (scales::two_halves) {
      L::template store_sums<0>(dots[0]);
      L::template store_sums<1>(dots[1]);
    } else {
      L::template store_sums<Slot>(dots[0]);
    }
  }

  /// A tile's sums. Written so that they never leave the registers, which the compiler keeps to
  /// only where it sees no index that it does not know.
  template <int... T>
  using tokens = std::integer_sequence<int, T...>;
  static constexpr std::make_integer_sequence<int, tile_tokens> every_token{};
  struct tile_sums {
    typename L::f of[tile_tokens];

    template <int... T>
    [[gnu::always_inline]] void load(const typename L::f* from, tokens<T...>) {
      ((of[T] = from != nullptr ? from[T] : L::set(0)), ...);
    }
    template <int... T>
    [[gnu::always_inline]] void store(typename L::f* to, tokens<T...>) const {
      ((to[T] = of[T]), ...);
    }
    template <class Dots, int... T>
    [[gnu::always_inline]] void add(const scales& s, const block_meta* m, int zero,
                                    const Dots& dots, tokens<T...>) {
      if constexpr (scales::two_halves)
        (add_block(s, m[T], zero, dots[0].of(T), dots[1].of(T), of[T]), ...);
      else
        (add_block(s, m[T], zero, dots[0].of(T), typename L::ints(), of[T]), ...);
    }
  };

  /// One block's terms of one token; `tail` only where the halves differ.
  [[gnu::always_inline]] static void add_block(const scales& s, const block_meta& m, int zero,
                                               typename L::ints head,
                                               [[maybe_unused]] typename L::ints tail,
                                               typename L::f& sum) {
    const auto scale = L::set(m.scale);
    if constexpr (scales::two_halves) {
      head = L::subtract(head, zero * m.head);
      tail = L::subtract(tail, zero * m.tail);
      sum = L::fma(L::to_floats(head), L::mul(s.scale, scale), sum);
      sum = L::fma(L::to_floats(tail), L::mul(s.second, scale), sum);
    } else {
      if constexpr (!scales::has_minimum)
        head = L::subtract(head, zero * (m.head + m.tail));
      sum = L::fma(L::to_floats(head), L::mul(s.scale, scale), sum);
      if constexpr (scales::has_minimum)
        sum = L::fma(s.second, L::set(m.sum), sum);
    }
  }
};

template <class L, int Tokens, code_kind Codes, code_bits Bits = code_bits::sixteen>
void multiply_codes(const product& p, int group_begin, int group_end, int tokens) {
  switch (p.weights.scales) {
  case scale_kind::half:
    return tiles<L, quantised_product<L, Codes, scale_kind::half, Bits>, Tokens>(
        p, group_begin, group_end, 0, tokens);
  case scale_kind::half_min:
    return tiles<L, quantised_product<L, Codes, scale_kind::half_min, Bits>, Tokens>(
        p, group_begin, group_end, 0, tokens);
  case scale_kind::super_min:
    return tiles<L, quantised_product<L, Codes, scale_kind::super_min, Bits>, Tokens>(
        p, group_begin, group_end, 0, tokens);
  case scale_kind::super_pair:
    if constexpr (Codes == code_kind::byte)
      return tiles<L, quantised_product<L, Codes, scale_kind::super_pair, Bits>, Tokens>(
          p, group_begin, group_end, 0, tokens);
    return;
  case scale_kind::none:
    return;
  }
}

/// `Tokens`: the widest tile that the level's registers hold.
template <class L, int Tokens>
void multiply(const product& p, int group_begin, int group_end, int tokens) {
  switch (p.weights.codes) {
  case code_kind::nibble:
    if constexpr (L::byte_planes)
      if (p.inputs.bits == code_bits::twelve)
        return multiply_codes<L, Tokens, code_kind::nibble, code_bits::twelve>(p, group_begin,
                                                                               group_end, tokens);
    return multiply_codes<L, Tokens, code_kind::nibble>(p, group_begin, group_end, tokens);
  case code_kind::nibble_table:
    return tiles<
        L, quantised_product<L, code_kind::nibble_table, scale_kind::half, code_bits::sixteen>,
        Tokens>(p, group_begin, group_end, 0, tokens);
  case code_kind::byte:
    return multiply_codes<L, Tokens, code_kind::byte>(p, group_begin, group_end, tokens);
  default:
    return multiply_floats<L, Tokens>(p, group_begin, group_end, tokens);
  }
}

/// 32 columns at a time to codes that split into two signed bytes: |q| <= 127 * 256 + 127, in 12
/// bits 127 * 16 + 127.
template <class L, code_bits Bits>
void quantise_in(const float* x, int columns, std::byte* codes, block_meta* meta) {
  constexpr float most = Bits == code_bits::twelve ? 2159.0F : 32639.0F;
  constexpr float least = 1e-30F; // below it the inverse would overflow: such a block is zero
  for (int k = 0; k < columns; k += block_columns) {
    const auto a = L::load(x + k);
    const auto b = L::load(x + k + 16);
    const float largest = L::largest(L::max(L::abs(a), L::abs(b)));
    const float inverse = largest > least ? most / largest : 0.0F;
    const auto head = L::to_ints(L::mul(a, L::set(inverse)));
    const auto tail = L::to_ints(L::mul(b, L::set(inverse)));
    L::template store_codes<Bits>(codes, head, tail);
    meta->scale = largest > least ? largest / most : 0.0F;
    meta->head = L::sum_ints(head);
    meta->tail = L::sum_ints(tail);
    meta->sum = meta->scale * static_cast<float>(meta->head + meta->tail);
    codes += block_code_bytes * tile_tokens;
    meta += tile_tokens;
  }
}

template <class L>
void quantise(const float* x, int columns, code_bits bits, std::byte* codes, block_meta* meta) {
  if (bits == code_bits::twelve)
    quantise_in<L, code_bits::twelve>(x, columns, codes, meta);
  else
    quantise_in<L, code_bits::sixteen>(x, columns, codes, meta);
}

} // namespace
} // namespace hexgen::compute
