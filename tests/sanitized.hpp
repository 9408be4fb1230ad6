// Whether the tests run under a sanitizer, ten times as slowly: cases that measure how good a
// result is then run on fewer or smaller inputs, since only the code that they pass through is
// asked about.
#pragma once

namespace hexgen::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
inline constexpr bool sanitized =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool sanitized = false;
#endif

} // namespace hexgen::test
