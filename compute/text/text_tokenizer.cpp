#include "compute/text/text_tokenizer.hpp"

#include "compute/text/unicode.hpp"

#include <utility>

namespace hexgen::compute {

text_tokenizer::text_tokenizer(vocabulary v)
    : vocabulary_(std::make_unique<const vocabulary>(std::move(v))), added_(*vocabulary_),
      special_(vocabulary_->pieces.size(), false) {
  for (std::size_t i = 0; i < special_.size(); ++i)
    special_[i] = vocabulary_->kinds[i] == token_kind::control ||
                  vocabulary_->kinds[i] == token_kind::unknown;
  for (const auto& a : vocabulary_->added)
    if (a.special)
      special_[static_cast<std::size_t>(a.id)] = true;
}

std::vector<token_id> text_tokenizer::encode(std::string_view text, bool parse_special,
                                             bool add_bos) const {
  std::vector<token_id> ids;
  ids.reserve(text.size() / 3 + 2);
  if (add_bos && vocabulary_->add_bos)
    ids.push_back(vocabulary_->bos);
  const auto whole = well_formed_utf8(text);
  auto place = part_place::start;
  for (const auto& part : added_.split(whole, parse_special)) {
    if (part.id < 0 || (part.in_text && place != part_place::text))
      encode_part(part.id < 0 ? part.text : std::string_view(), place, ids);
    if (part.id >= 0)
      ids.push_back(part.id);
    place = part.id >= 0 && !part.in_text ? part_place::token : part_place::text;
  }
  return ids;
}

std::string text_tokenizer::piece(token_id id, bool skip_special) const {
  if (id < 0 || id >= vocab() || (skip_special && special_[static_cast<std::size_t>(id)]))
    return {};
  return outputs_[static_cast<std::size_t>(id)];
}

bool text_tokenizer::is_special(token_id id) const {
  return id >= 0 && id < vocab() && special_[static_cast<std::size_t>(id)];
}

std::string tokenizer::decode(std::span<const token_id> ids, bool skip_special) const {
  std::string text;
  bool first = drops_first_space();
  for (const auto id : ids) {
    const auto bytes = piece(id, skip_special);
    text.append(bytes, first && !bytes.empty() && bytes.front() == ' ' ? 1 : 0);
    first = first && bytes.empty();
  }
  return text;
}

} // namespace hexgen::compute
