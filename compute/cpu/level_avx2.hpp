// Integer dots with AVX2: activations as pairs of int16, weights widened to int16.
#pragma once

#include "compute/cpu/lanes_avx2.hpp"
#include "compute/cpu/quantised_product.hpp"

namespace hexgen::compute {
namespace {

struct level_avx2 : lanes_avx2 {
  static constexpr bool byte_planes = false;
  struct ints {
    __m256i a, b; // lanes 0-7, 8-15
  };

  static ints to_ints(f x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
  static f to_floats(ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
  static ints subtract(ints x, std::int32_t y) {
    const __m256i v = _mm256_set1_epi32(y);
    return {_mm256_sub_epi32(x.a, v), _mm256_sub_epi32(x.b, v)};
  }
  static std::int32_t sum_ints(ints x) {
    const __m256i s = _mm256_add_epi32(x.a, x.b);
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4E));
    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0xB1));
    return _mm_cvtsi128_si32(q);
  }

  /// Sixteen int32 to int16, columns 4j, 4j+2, 4j+1, 4j+3 of each four: the pairs that the even and
  /// the odd bytes of a word of weights meet.
  static __m256i paired(ints x) {
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xD8);
    return _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(packed, 0xD8), 0xD8);
  }
  template <code_bits>
  static void store_codes(std::byte* out, ints head, ints tail) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), paired(head));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) + 1, paired(tail));
  }

  static __m256i load_words(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }

  /// One block of 16 rows: word j as its even and its odd bytes in int16.
  template <code_kind Kind, code_bits>
  struct codes {
    __m256i even[8][2], odd[8][2];

    explicit codes(const std::byte* p) {
      for (int half = 0; half < 2; ++half)
        if constexpr (Kind == code_kind::byte) {
          for (int j = 0; j < 8; ++j)
            widen(load_words(p + 64 * j + 32 * half), j, half);
        } else {
          for (int j = 0; j < 4; ++j) {
            const __m256i pairs = load_words(p + 64 * j + 32 * half);
            widen(nibble(pairs), j, half);
            widen(nibble(_mm256_srli_epi32(pairs, 4)), j + 4, half);
          }
        }
    }
    static __m256i nibble(__m256i pairs) {
      const __m256i low = _mm256_and_si256(pairs, _mm256_set1_epi8(15));
      if constexpr (Kind == code_kind::nibble)
        return low;
      const __m128i table = _mm_load_si128(reinterpret_cast<const __m128i*>(nibble_values));
      return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), low);
    }
    void widen(__m256i bytes, int j, int half) {
      const __m256i mask = _mm256_set1_epi32(0x00FF00FF);
      even[j][half] = _mm256_and_si256(bytes, mask);
      odd[j][half] = _mm256_and_si256(_mm256_srli_epi32(bytes, 8), mask);
    }
    /// The dot over words [Begin, End).
    template <int Begin, int End>
    [[nodiscard]] ints dot(const std::byte* x) const {
      ints sum{_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 8
      for (int j = Begin; j < End; ++j) {
        accumulate(sum, x + 8 * j, even[j]);
        accumulate(sum, x + 8 * j + 4, odd[j]);
      }
      return sum;
    }
    static void accumulate(ints& sum, const std::byte* x, const __m256i (&w)[2]) {
      std::int32_t pair;
      std::memcpy(&pair, x, sizeof pair);
      const __m256i v = _mm256_set1_epi32(pair);
      sum.a = _mm256_add_epi32(sum.a, _mm256_madd_epi16(v, w[0]));
      sum.b = _mm256_add_epi32(sum.b, _mm256_madd_epi16(v, w[1]));
    }
  };
};

} // namespace
} // namespace hexgen::compute
