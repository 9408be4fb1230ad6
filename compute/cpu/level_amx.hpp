// Integer dots with the matrix unit: 16 tokens by 16 rows in one instruction a plane, or for both
// planes where weights have four bits: a code of 12 bits is 16 * high + low, and 16 * weight fits
// into a byte, so that [high low] meets [16 * weights; weights]. Fewer tokens than a tile go the
// way of VNNI, whose layouts these are; the sums are exact in both.
#pragma once

#include "compute/cpu/level_avx512.hpp"

#include <type_traits>

namespace hexgen::compute {
namespace {

/// What LDTILECFG reads (Intel SDM, volume 2A).
struct alignas(64) tile_config {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

/// Tiles 0 to 3: sums, of 16 bits two pairs of the high and the low plane. 4 and 5: codes of one
/// plane or of both, and 6 and 7: the weights they meet, `columns` of them.
constexpr tile_config tile_shapes(int columns) {
  tile_config c;
  for (int i = 0; i < 8; ++i) {
    c.row_bytes[i] = static_cast<std::uint16_t>(i == 4 || i == 5 ? columns : 64);
    c.rows[i] = static_cast<std::uint8_t>(i < 6 ? 16 : columns / 4);
  }
  return c;
}

struct level_amx : level_vnni {
  /// The calling thread's tiles are set up for products over 32 columns (16: half a block; 64: both
  /// planes) while this lives.
  struct tile_session {
    explicit tile_session(const product& p) {
      static constexpr tile_config whole = tile_shapes(32);
      static constexpr tile_config half = tile_shapes(16);
      static constexpr tile_config both_planes = tile_shapes(64);
      _tile_loadconfig(p.inputs.bits == code_bits::twelve           ? &both_planes
                       : p.weights.scales == scale_kind::super_pair ? &half
                                                                    : &whole);
    }
    ~tile_session() { _tile_release(); }
    tile_session(const tile_session&) = delete;
    tile_session& operator=(const tile_session&) = delete;
  };

  /// The dots of 16 tokens with 16 rows.
  struct whole_dots {
    alignas(64) std::int32_t sums[tile_tokens][lane_rows];

    [[nodiscard]] ints of(int token) const { return _mm512_load_si512(sums[token]); }
  };
  /// By plane.
  struct plane_dots {
    alignas(64) std::int32_t high[tile_tokens][lane_rows];
    alignas(64) std::int32_t low[tile_tokens][lane_rows];

    [[nodiscard]] ints of(int token) const {
      return _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(high[token]), 8),
                              _mm512_load_si512(low[token]));
    }
  };

  template <code_bits Bits>
  using tile_dots = std::conditional_t<Bits == code_bits::twelve, whole_dots, plane_dots>;

  /// One block's weights where tiles can be loaded from.
  template <code_kind Kind, code_bits Bits>
  static const std::byte* tile_words(const std::byte* p, std::byte* buffer) {
    if constexpr (Kind == code_kind::byte)
      return p;
    __m512i words[8];
    load_bytes<Kind>(p, words);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      if constexpr (Bits == code_bits::twelve) {
        _mm512_store_si512(buffer + 64 * j, _mm512_slli_epi32(words[j], 4));
        _mm512_store_si512(buffer + 64 * (j + 8), words[j]);
      } else {
        _mm512_store_si512(buffer + 64 * j, words[j]);
      }
    }
    return buffer;
  }

  /// Begins the sums of slot 0 or 1. `x`: where the columns begin in the first token's codes, those
  /// of the others lie side by side.
  template <int Slot, code_bits Bits>
  static void multiply_tile(const std::byte* x, const std::byte* words) {
    if constexpr (Bits == code_bits::twelve) {
      load_tile<6 + Slot, 16>(words);
      load_tile<4 + Slot, 16>(x);
      zero_tile<Slot>();
      multiply_tiles<Slot, 4 + Slot, 6 + Slot>();
    } else {
      load_tile<6 + Slot, 8>(words);
      load_tile<4, 16>(x);
      zero_tile<2 * Slot>();
      multiply_tiles<2 * Slot, 4, 6 + Slot>();
      load_tile<5, 16>(x + 32);
      zero_tile<2 * Slot + 1>();
      multiply_tiles<2 * Slot + 1, 5, 6 + Slot>();
    }
  }
  template <int Slot>
  static void store_sums(plane_dots& out) {
    store_tile<2 * Slot>(out.high);
    store_tile<2 * Slot + 1>(out.low);
  }
  template <int Slot>
  static void store_sums(whole_dots& out) {
    store_tile<Slot>(out.sums);
  }

private:
  // The compiler's own calls say either nothing of the memory they read or that all memory may have
  // changed, which would send the sums to memory at each of them.
  static constexpr std::int64_t row_step = 64; // bytes
  static_assert(row_step == block_code_bytes);
  template <int Tile, int Rows>
  static void load_tile(const std::byte* from) {
    using bytes = std::byte[Rows * row_step];
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(from), "r"(row_step), "i"(Tile), "m"(*reinterpret_cast<const bytes*>(from)));
  }
  template <int Tile>
  static void store_tile(std::int32_t (&to)[tile_tokens][lane_rows]) {
    asm volatile("tilestored %%tmm%c3, (%1,%2,1)" : "=m"(to) : "r"(&to), "r"(row_step), "i"(Tile));
  }
  template <int Tile>
  static void zero_tile() {
    asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
  }
  template <int Sums, int Codes, int Weights>
  static void multiply_tiles() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(Codes), "i"(Weights));
  }
};

} // namespace
} // namespace hexgen::compute
