// Integer dots with the matrix unit: 16 tokens by 16 rows in one instruction a plane. Fewer tokens
// than a tile go the way of VNNI, whose layouts these are; the sums are exact in both.
#pragma once

#include "compute/cpu/level_avx512.hpp"

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

/// Tiles 0 and 1: sums of the high and the low plane. 2 and 3: their codes, 32 columns each, and 4:
/// the weights they meet. 5, 6 and 7: the same for 16 columns.
constexpr tile_config tile_shapes = [] {
  tile_config c;
  constexpr std::uint16_t row_bytes[8] = {64, 64, 32, 32, 64, 16, 16, 64};
  constexpr std::uint8_t rows[8] = {16, 16, 16, 16, 8, 16, 16, 4};
  for (int i = 0; i < 8; ++i) {
    c.row_bytes[i] = row_bytes[i];
    c.rows[i] = rows[i];
  }
  return c;
}();

struct level_amx : level_vnni {
  /// The calling thread's tiles are set up while this lives.
  struct tile_session {
    tile_session() { _tile_loadconfig(&tile_shapes); }
    ~tile_session() { _tile_release(); }
    tile_session(const tile_session&) = delete;
    tile_session& operator=(const tile_session&) = delete;
  };

  /// One block's weights where tiles can be loaded from.
  template <code_kind Kind>
  struct tile_codes {
    explicit tile_codes(const std::byte* p) : words(Kind == code_kind::byte ? p : buffer) {
      if constexpr (Kind != code_kind::byte) {
        __m512i unpacked[8];
        load_bytes<Kind>(p, unpacked);
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j)
          _mm512_store_si512(buffer + 64 * j, unpacked[j]);
      }
    }
    tile_codes(const tile_codes&) = delete;
    tile_codes& operator=(const tile_codes&) = delete;

    /// The dots of 16 tokens, whose codes lie side by side from `x`, over words [Begin, End).
    template <int Begin, int End>
    void dots(const std::byte* x, ints (&out)[tile_tokens]) const {
      constexpr int columns = 4 * Begin;
      alignas(64) std::int32_t high[tile_tokens][lane_rows], low[tile_tokens][lane_rows];
      // The loads below do not tell the compiler what they read.
      asm volatile("" ::: "memory");
      _tile_zero(0);
      _tile_zero(1);
      if constexpr (End - Begin == 8) {
        _tile_loadd(2, x + columns, block_code_bytes);
        _tile_loadd(3, x + 32 + columns, block_code_bytes);
        _tile_loadd(4, words + 64 * Begin, 64);
        _tile_dpbsud(0, 2, 4);
        _tile_dpbsud(1, 3, 4);
      } else {
        static_assert(End - Begin == 4);
        _tile_loadd(5, x + columns, block_code_bytes);
        _tile_loadd(6, x + 32 + columns, block_code_bytes);
        _tile_loadd(7, words + 64 * Begin, 64);
        _tile_dpbsud(0, 5, 7);
        _tile_dpbsud(1, 6, 7);
      }
      _tile_stored(0, high, 64);
      _tile_stored(1, low, 64);
      asm volatile("" ::: "memory");
#pragma GCC unroll 16
      for (int t = 0; t < tile_tokens; ++t)
        out[t] = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(high[t]), 8),
                                  _mm512_load_si512(low[t]));
    }

    const std::byte* words;
    alignas(64) std::byte buffer[Kind == code_kind::byte ? 64 : 512];
  };
};

} // namespace
} // namespace hexgen::compute
