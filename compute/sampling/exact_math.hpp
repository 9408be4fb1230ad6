// exp without libm: only adds, multiplies and integer work, in one order. The same bits from every
// compiler and instruction set (docs/design.md, Numerics). exact_exp itself is in sampler.hpp.
#pragma once

#include <span>

namespace hexgen::compute {

/// out[i] = exact_exp(x[i] - shift), bit for bit. `out` may be `x`. Sizes are equal.
void exact_exp_shifted(std::span<const float> x, float shift, std::span<float> out);

/// The sum in double of 64 interleaved lanes, which are then added in one fixed tree.
[[nodiscard]] double exact_sum(std::span<const float> x);

} // namespace hexgen::compute
