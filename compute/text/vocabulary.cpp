#include "compute/text/vocabulary.hpp"

#include "compute/model_file.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace hexgen::compute {

namespace {

// Ends of turns of the families that are served; files often name only one of them.
constexpr std::array<std::string_view, 8> known_ends = {
    "<|im_end|>",    "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>",
    "<|endoftext|>", "<|end|>",    "<EOT>",      "<|eot|>"};

} // namespace

void bad_tokenizer(const std::string& file, const std::string& field, const std::string& what) {
  throw file_error(file + ": " + field + ": " + what);
}

void complete_vocabulary(vocabulary& v) {
  const auto size = v.pieces.size();
  if (size == 0 || size > max_vocabulary)
    bad_tokenizer(v.file, "vocabulary", "has " + std::to_string(size) + " tokens");
  if (v.kinds.size() != size)
    bad_tokenizer(v.file, "token types",
                  std::to_string(v.kinds.size()) + " for " + std::to_string(size) + " tokens");
  if (!v.scores.empty() && v.scores.size() != size)
    bad_tokenizer(v.file, "scores",
                  std::to_string(v.scores.size()) + " for " + std::to_string(size) + " tokens");
  for (std::size_t i = 0; i < size; ++i)
    if (v.pieces[i].size() > max_piece_bytes)
      bad_tokenizer(v.file, "token " + std::to_string(i), "is too long");
  for (std::size_t i = 0; i < v.scores.size(); ++i)
    if (!std::isfinite(v.scores[i]))
      bad_tokenizer(v.file, "scores[" + std::to_string(i) + "]", "is not finite");
  const auto check = [&](token_id id, const char* field) {
    if (id < -1 || id >= static_cast<token_id>(size))
      bad_tokenizer(v.file, field, "id " + std::to_string(id) + " is outside the vocabulary");
  };
  check(v.bos, "bos");
  check(v.eos, "eos");
  check(v.unknown, "unknown token");
  for (const auto id : v.end_ids)
    check(id, "end id");

  std::vector<bool> listed(size, false);
  for (const auto& a : v.added) {
    if (a.id < 0)
      bad_tokenizer(v.file, "added token", "negative id");
    check(a.id, "added token");
    listed[static_cast<std::size_t>(a.id)] = true;
  }
  for (std::size_t i = 0; i < size; ++i) {
    const auto kind = v.kinds[i];
    if (listed[i] || v.pieces[i].empty() ||
        (kind != token_kind::control && kind != token_kind::user_defined))
      continue;
    v.added.push_back({static_cast<token_id>(i), kind == token_kind::control});
  }
  if (v.eos >= 0)
    v.end_ids.push_back(v.eos);
  for (const auto& a : v.added) {
    const auto& text = v.pieces[static_cast<std::size_t>(a.id)];
    if (std::find(known_ends.begin(), known_ends.end(), text) != known_ends.end())
      v.end_ids.push_back(a.id);
  }
  std::sort(v.end_ids.begin(), v.end_ids.end());
  v.end_ids.erase(std::unique(v.end_ids.begin(), v.end_ids.end()), v.end_ids.end());
  v.end_ids.erase(std::remove(v.end_ids.begin(), v.end_ids.end(), -1), v.end_ids.end());
  v.add_bos = v.add_bos && v.bos >= 0;
}

std::unordered_map<std::string_view, token_id> piece_ids(const vocabulary& v) {
  std::unordered_map<std::string_view, token_id> ids;
  ids.reserve(v.pieces.size());
  for (std::size_t i = 0; i < v.pieces.size(); ++i)
    ids.emplace(v.pieces[i], static_cast<token_id>(i));
  return ids;
}

} // namespace hexgen::compute
