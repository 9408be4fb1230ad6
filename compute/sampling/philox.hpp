// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3" (SC 2011): a draw is a pure function of its key and its place.
#pragma once

#include <array>
#include <cstdint>

namespace hexgen::compute {

[[nodiscard]] std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                      std::array<std::uint32_t, 2> key);

/// The uniform draw in [0, 1) (53 bits) of one position of one choice.
[[nodiscard]] double uniform_draw(std::uint64_t seed, std::uint32_t choice, std::uint64_t position);

} // namespace hexgen::compute
