// Double-precision functions whose bits do not depend on the machine's libm. For tables that are
// made once (rotary frequencies) or once a step (rotary angles), not for inner loops.
#pragma once

namespace hexgen::compute {

struct sine_cosine {
  double sine;
  double cosine;
};

/// |x| <= 2^22; error below 1e-15 absolute.
[[nodiscard]] sine_cosine exact_sine_cosine(double x);
/// x > 0 and finite; relative error below 1e-15.
[[nodiscard]] double exact_log(double x);
/// |x| <= 700; relative error below 1e-15.
[[nodiscard]] double exact_exp_double(double x);

} // namespace hexgen::compute
