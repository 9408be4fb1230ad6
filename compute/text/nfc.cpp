#include "compute/text/nfc.hpp"

#include "compute/text/nfc_tables.hpp"
#include "compute/text/unicode.hpp"

#include <algorithm>
#include <cstdlib>
#include <unordered_map>
#include <vector>

namespace hexgen::compute {

namespace {

// Hangul syllables compose by arithmetic (The Unicode Standard, section 3.12).
constexpr char32_t syllable_base = 0xAC00, lead_base = 0x1100, vowel_base = 0x1161,
                   trail_base = 0x11A7;
constexpr char32_t leads = 19, vowels = 21, trails = 28;
constexpr char32_t syllables = leads * vowels * trails;

struct code_with_class {
  char32_t code;
  int combining_class;
};

int combining_class(char32_t code) {
  const auto wanted = static_cast<std::int32_t>(code);
  std::size_t low = 0;
  std::size_t high = nfc_class_range_count;
  while (low < high) {
    const auto mid = (low + high) / 2;
    if (wanted < nfc_class_ranges[3 * mid])
      high = mid;
    else if (wanted > nfc_class_ranges[3 * mid + 1])
      low = mid + 1;
    else
      return nfc_class_ranges[3 * mid + 2];
  }
  return 0;
}

void decompose(char32_t code, std::vector<code_with_class>& out) {
  if (code >= syllable_base && code < syllable_base + syllables) {
    const char32_t index = code - syllable_base;
    out.push_back({lead_base + index / (vowels * trails), 0});
    out.push_back({vowel_base + index % (vowels * trails) / trails, 0});
    if (index % trails != 0)
      out.push_back({trail_base + index % trails, 0});
    return;
  }
  const auto wanted = static_cast<std::int32_t>(code);
  std::size_t low = 0;
  std::size_t high = nfc_decomposition_count;
  while (low < high) {
    const auto mid = (low + high) / 2;
    const auto at = std::abs(nfc_decompositions[3 * mid]);
    if (at == wanted) {
      decompose(static_cast<char32_t>(nfc_decompositions[3 * mid + 1]), out);
      if (const auto second = nfc_decompositions[3 * mid + 2])
        decompose(static_cast<char32_t>(second), out);
      return;
    }
    if (at < wanted)
      low = mid + 1;
    else
      high = mid;
  }
  out.push_back({code, combining_class(code)});
}

using pair_map = std::unordered_map<std::uint64_t, char32_t>;

std::uint64_t pair_key(char32_t a, char32_t b) {
  return (static_cast<std::uint64_t>(a) << 32U) | b;
}

const pair_map& compositions() {
  static const pair_map map = [] {
    pair_map m;
    for (std::size_t i = 0; i < nfc_decomposition_count; ++i) {
      const auto* entry = nfc_decompositions + 3 * i;
      if (entry[0] > 0 && entry[2] > 0)
        m.emplace(pair_key(static_cast<char32_t>(entry[1]), static_cast<char32_t>(entry[2])),
                  static_cast<char32_t>(entry[0]));
    }
    return m;
  }();
  return map;
}

// The composed character, or 0.
char32_t compose(char32_t a, char32_t b) {
  if (a >= lead_base && a < lead_base + leads && b >= vowel_base && b < vowel_base + vowels)
    return syllable_base + ((a - lead_base) * vowels + (b - vowel_base)) * trails;
  if (a >= syllable_base && a < syllable_base + syllables && (a - syllable_base) % trails == 0 &&
      b > trail_base && b < trail_base + trails)
    return a + (b - trail_base);
  const auto at = compositions().find(pair_key(a, b));
  return at == compositions().end() ? 0 : at->second;
}

void sort_marks(std::vector<code_with_class>& codes) {
  const auto is_mark = [](const code_with_class& c) { return c.combining_class != 0; };
  for (auto run = codes.begin(); run != codes.end();) {
    run = std::find_if(run, codes.end(), is_mark);
    const auto end = std::find_if_not(run, codes.end(), is_mark);
    std::stable_sort(run, end, [](const code_with_class& a, const code_with_class& b) {
      return a.combining_class < b.combining_class;
    });
    run = end;
  }
}

} // namespace

std::string nfc(std::string_view text) {
  // Below U+0300 nothing decomposes that would not compose again, and nothing combines.
  if (std::all_of(text.begin(), text.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0xCC; }))
    return std::string(text);
  std::vector<code_with_class> codes;
  codes.reserve(text.size());
  while (!text.empty()) {
    const auto c = decode_utf8(text);
    decompose(c.bytes == 0 ? 0xFFFD : c.code, codes);
    text.remove_prefix(c.bytes == 0 ? 1 : c.bytes);
  }
  sort_marks(codes);
  std::string out;
  std::size_t starter = codes.size(); // none yet
  int last_class = -1;                // of what stands between the starter and here
  std::size_t kept = 0;
  for (const auto c : codes) {
    const bool blocked = last_class >= c.combining_class && last_class != -1;
    if (starter < codes.size() && !blocked) {
      if (const auto whole = compose(codes[starter].code, c.code)) {
        codes[starter].code = whole;
        continue;
      }
    }
    if (c.combining_class == 0) {
      starter = kept;
      last_class = -1;
    } else {
      last_class = c.combining_class;
    }
    codes[kept++] = c;
  }
  for (std::size_t i = 0; i < kept; ++i)
    append_utf8(out, codes[i].code);
  return out;
}

} // namespace hexgen::compute
