#include "compute/text/sentencepiece_tokenizer.hpp"

#include "compute/text/merge_table.hpp"
#include "compute/text/text_tokenizer.hpp"
#include "compute/text/unicode.hpp"

#include <array>
#include <limits>
#include <string>
#include <utility>

namespace hexgen::compute {

namespace {

constexpr std::string_view space_mark = "\xE2\x96\x81"; // U+2581

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  std::size_t at = 0;
  for (std::size_t hit = text.find(from); hit != std::string_view::npos;
       hit = text.find(from, at)) {
    out.append(text.substr(at, hit - at)).append(to);
    at = hit + from.size();
  }
  return out.append(text.substr(at));
}

// The value of "<0xAB>", or -1.
int byte_of(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>')
    return -1;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0)
      return -1;
    value = value * 16 + digit;
  }
  return value;
}

class sentencepiece_tokenizer final : public text_tokenizer {
public:
  sentencepiece_tokenizer(vocabulary v, const merge_list& merges, sentencepiece_options options)
      : text_tokenizer(std::move(v)), options_(options), ids_(piece_ids(words())) {
    merges_ = merge_table(words(), merges, ids_);
    if (merges.empty() && words().scores.empty())
      bad_tokenizer(words().file, "scores", "missing, and there are no merges");
    bytes_.fill(-1);
    outputs_.reserve(words().pieces.size());
    for (std::size_t i = 0; i < words().pieces.size(); ++i) {
      const auto& text = words().pieces[i];
      const auto kind = words().kinds[i];
      if (kind == token_kind::byte) {
        const int b = byte_of(text);
        if (b < 0)
          bad_tokenizer(words().file, "token " + std::to_string(i),
                        "'" + text + "' is no byte token");
        bytes_[static_cast<std::size_t>(b)] = static_cast<token_id>(i);
        outputs_.emplace_back(1, static_cast<char>(b));
      } else if (kind == token_kind::control) {
        outputs_.push_back(text);
      } else {
        outputs_.push_back(replace_all(text, space_mark, " "));
      }
    }
  }

private:
  [[nodiscard]] bool drops_first_space() const override {
    return options_.prefix != space_prefix::never;
  }

  void encode_part(std::string_view text, part_place place,
                   std::vector<token_id>& out) const override {
    const bool has_space =
        text.substr(0, 1) == " " || text.substr(0, space_mark.size()) == space_mark;
    const bool prefix =
        place != part_place::text &&
        (options_.prefix == space_prefix::parts ||
         (options_.prefix == space_prefix::parts_if_absent && !has_space) ||
         (options_.prefix == space_prefix::start && place == part_place::start && !has_space));
    std::string marked = prefix ? std::string(space_mark) : std::string();
    marked += replace_all(text, " ", space_mark);
    pair_merger merger;
    if (!options_.split_words) {
      encode_word(marked, merger, out);
      return;
    }
    for (std::size_t begin = 0; begin < marked.size();) {
      const auto end = std::min(marked.find(space_mark, begin + 1), marked.size());
      encode_word(std::string_view(marked).substr(begin, end - begin), merger, out);
      begin = end;
    }
  }

  void encode_word(std::string_view word, pair_merger& merger, std::vector<token_id>& out) const {
    if (word.size() > std::numeric_limits<std::uint32_t>::max())
      throw std::length_error("the text is too long to tokenise");
    std::vector<merge_symbol> symbols;
    symbols.reserve(word.size());
    for (std::size_t i = 0; i < word.size();) {
      const auto n = decode_utf8(word.substr(i)).bytes;
      symbols.push_back(
          {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(n), find(word.substr(i, n))});
      i += n;
    }
    if (merges_.empty())
      merger.run(symbols, [&](const merge_symbol& a, const merge_symbol& b) {
        const auto id = a.size + b.size > max_piece_bytes
                            ? -1
                            : find(word.substr(a.begin, std::size_t{a.size} + b.size));
        return id < 0 ? pair_merge{}
                      : pair_merge{-words().scores[static_cast<std::size_t>(id)], id};
      });
    else
      merger.run(symbols, [&](const merge_symbol& a, const merge_symbol& b) {
        return a.id < 0 || b.id < 0 ? pair_merge{} : merges_.find(a.id, b.id);
      });
    bool after_unknown = false;
    for (const auto& s : symbols) {
      const bool unknown = s.id < 0 && !fall_back(word.substr(s.begin, s.size), out);
      if (s.id >= 0)
        out.push_back(s.id);
      else if (unknown && !after_unknown && words().unknown >= 0)
        out.push_back(words().unknown);
      after_unknown = unknown;
    }
  }

  // Only text tokens: special ones are found by their texts when asked for.
  [[nodiscard]] token_id find(std::string_view text) const {
    const auto at = ids_.find(text);
    if (at == ids_.end())
      return -1;
    const auto kind = words().kinds[static_cast<std::size_t>(at->second)];
    return kind == token_kind::normal || kind == token_kind::user_defined ? at->second : -1;
  }

  bool fall_back(std::string_view text, std::vector<token_id>& out) const {
    for (const char c : text)
      if (bytes_[static_cast<unsigned char>(c)] < 0)
        return false;
    for (const char c : text)
      out.push_back(bytes_[static_cast<unsigned char>(c)]);
    return true;
  }

  sentencepiece_options options_;
  std::unordered_map<std::string_view, token_id> ids_;
  merge_table merges_;
  std::array<token_id, 256> bytes_{};
};

} // namespace

std::shared_ptr<const tokenizer> make_sentencepiece_tokenizer(vocabulary v,
                                                              const merge_list& merges,
                                                              sentencepiece_options options) {
  return std::make_shared<sentencepiece_tokenizer>(std::move(v), merges, options);
}

} // namespace hexgen::compute
