// Integer dots with AVX-512: with VNNI on two planes of bytes, without it on pairs of int16.
#pragma once

#include "compute/cpu/lanes_avx512.hpp"
#include "compute/cpu/quantised_product.hpp"

namespace hexgen::compute {
namespace {

/// What both share.
struct integers_avx512 : lanes_avx512 {
  using ints = __m512i;

  static ints to_ints(f x) { return _mm512_cvtps_epi32(x); }
  static f to_floats(ints x) { return _mm512_cvtepi32_ps(x); }
  static ints subtract(ints x, std::int32_t y) { return _mm512_sub_epi32(x, _mm512_set1_epi32(y)); }
  static std::int32_t sum_ints(ints x) { return _mm512_reduce_add_epi32(x); }
  static __m512i load_words(const std::byte* p) { return _mm512_loadu_si512(p); }
  static __m512i broadcast(const std::byte* p) {
    std::int32_t word;
    std::memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
  }
  template <code_kind Kind>
  static __m512i nibble(__m512i pairs) {
    const __m512i low = _mm512_and_si512(pairs, _mm512_set1_epi8(15));
    if constexpr (Kind == code_kind::nibble)
      return low;
    const __m128i table = _mm_load_si128(reinterpret_cast<const __m128i*>(nibble_values));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), low);
  }
  /// The eight words of a block as unsigned bytes.
  template <code_kind Kind>
  static void load_bytes(const std::byte* p, __m512i (&words)[8]) {
    if constexpr (Kind == code_kind::byte) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j)
        words[j] = load_words(p + 64 * j);
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const __m512i pairs = load_words(p + 64 * j);
        words[j] = nibble<Kind>(pairs);
        words[j + 4] = nibble<Kind>(_mm512_srli_epi32(pairs, 4));
      }
    }
  }
};

struct level_avx512 : integers_avx512 {
  static constexpr bool byte_planes = false;
  /// Columns 4j, 4j+2, 4j+1, 4j+3 of each four: the pairs that the even and the odd bytes of a word
  /// of weights meet.
  static __m256i paired(ints x) {
    const __m256i packed = _mm512_cvtepi32_epi16(x);
    return _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(packed, 0xD8), 0xD8);
  }
  template <code_bits>
  static void store_codes(std::byte* out, ints head, ints tail) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), paired(head));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) + 1, paired(tail));
  }

  template <code_kind Kind, code_bits>
  struct codes {
    __m512i even[8], odd[8];

    explicit codes(const std::byte* p) {
      __m512i words[8];
      load_bytes<Kind>(p, words);
      const __m512i mask = _mm512_set1_epi32(0x00FF00FF);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        even[j] = _mm512_and_si512(words[j], mask);
        odd[j] = _mm512_and_si512(_mm512_srli_epi32(words[j], 8), mask);
      }
    }
    /// The dot over words [Begin, End).
    template <int Begin, int End>
    [[nodiscard]] ints dot(const std::byte* x) const {
      ints sum = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int j = Begin; j < End; ++j) {
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(broadcast(x + 8 * j), even[j]));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(broadcast(x + 8 * j + 4), odd[j]));
      }
      return sum;
    }
  };
};

#ifdef __AVX512VNNI__
struct level_vnni : integers_avx512 {
  static constexpr bool byte_planes = true;
  static constexpr unsigned high_shift(code_bits bits) { return bits == code_bits::twelve ? 4 : 8; }

  /// The high plane (32 bytes), then the low one: code = 2^high_shift * high + low, both signed.
  template <code_bits Bits>
  static void store_codes(std::byte* out, ints head, ints tail) {
    constexpr unsigned shift = high_shift(Bits);
    const __m512i half = _mm512_set1_epi32(1 << (shift - 1));
    auto* to = reinterpret_cast<__m128i*>(out);
    const auto store = [&](ints x, int half_block) {
      ints high = _mm512_srai_epi32(_mm512_add_epi32(x, half), shift);
      if constexpr (Bits == code_bits::twelve) // what is past a byte the low one holds
        high = _mm512_max_epi32(_mm512_min_epi32(high, _mm512_set1_epi32(127)),
                                _mm512_set1_epi32(-128));
      _mm_storeu_si128(to + half_block, _mm512_cvtepi32_epi8(high));
      _mm_storeu_si128(to + half_block + 2,
                       _mm512_cvtepi32_epi8(_mm512_sub_epi32(x, _mm512_slli_epi32(high, shift))));
    };
    store(head, 0);
    store(tail, 1);
  }

  template <code_kind Kind, code_bits Bits>
  struct codes {
    __m512i words[8];

    explicit codes(const std::byte* p) { load_bytes<Kind>(p, words); }
    /// The dot over words [Begin, End).
    template <int Begin, int End>
    [[nodiscard]] ints dot(const std::byte* x) const {
      ints high = _mm512_setzero_si512();
      ints low = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int j = Begin; j < End; ++j) {
        high = _mm512_dpbusd_epi32(high, words[j], broadcast(x + 4 * j));
        low = _mm512_dpbusd_epi32(low, words[j], broadcast(x + 32 + 4 * j));
      }
      return _mm512_add_epi32(_mm512_slli_epi32(high, high_shift(Bits)), low);
    }
  };
};
#endif

} // namespace
} // namespace hexgen::compute
