// Unicode's composed normal form.
#pragma once

#include <string>
#include <string_view>

namespace hexgen::compute {

/// `text` (well-formed UTF-8) in normal form C of Unicode 14. Runs of combining marks are sorted
/// in O(n log n).
[[nodiscard]] std::string nfc(std::string_view text);

} // namespace hexgen::compute
