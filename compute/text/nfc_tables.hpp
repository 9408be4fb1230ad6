// Data of nfc.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hexgen::compute {

inline constexpr std::size_t nfc_decomposition_count = 2061;
inline constexpr std::size_t nfc_class_range_count = 382;

/// Triples in order of |first|: (composed, first part, second part or 0). `composed` is negative
/// where the parts do not compose to it again. Hangul syllables are not listed.
extern const std::int32_t nfc_decompositions[nfc_decomposition_count * 3];

/// Triples in order: (first code point, last code point, combining class that is not 0).
extern const std::int32_t nfc_class_ranges[nfc_class_range_count * 3];

} // namespace hexgen::compute
