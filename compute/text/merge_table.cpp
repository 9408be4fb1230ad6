#include "compute/text/merge_table.hpp"

#include <string>

namespace hexgen::compute {

merge_table::merge_table(const vocabulary& v, const merge_list& merges,
                         const std::unordered_map<std::string_view, token_id>& ids) {
  if (merges.size() > max_merges)
    bad_tokenizer(v.file, "merges", "has " + std::to_string(merges.size()) + " entries");
  pairs_.reserve(merges.size());
  float rank = 0; // exact: fewer than 2^24 merges
  for (const auto& [left, right] : merges) {
    const auto l = ids.find(left);
    const auto r = ids.find(right);
    const auto whole = left + right;
    const auto w = ids.find(whole);
    if (l == ids.end() || r == ids.end() || w == ids.end())
      bad_tokenizer(v.file, "merges[" + std::to_string(static_cast<std::size_t>(rank)) + "]",
                    "'" + left + "' + '" + right + "' is not in the vocabulary");
    pairs_.emplace(key(l->second, r->second), pair_merge{rank, w->second});
    rank += 1;
  }
}

} // namespace hexgen::compute
