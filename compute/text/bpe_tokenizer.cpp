#include "compute/text/bpe_tokenizer.hpp"

#include "compute/text/byte_alphabet.hpp"
#include "compute/text/merge_table.hpp"
#include "compute/text/nfc.hpp"
#include "compute/text/text_tokenizer.hpp"

#include <array>
#include <stdexcept>
#include <utility>

namespace hexgen::compute {

namespace {

class bpe_tokenizer final : public text_tokenizer {
public:
  bpe_tokenizer(vocabulary v, const merge_list& merges, bpe_options options)
      : text_tokenizer(std::move(v)), options_(std::move(options)), splitter_(options_.rules) {
    const auto ids = piece_ids(words());
    merges_ = merge_table(words(), merges, ids);
    for (std::size_t b = 0; b < 256; ++b) {
      const auto at = ids.find(byte_characters()[b]);
      bytes_[b] = at == ids.end() ? -1 : at->second;
    }
    std::vector<bool> literal(words().pieces.size(), false);
    for (const auto& a : words().added)
      literal[static_cast<std::size_t>(a.id)] = true;
    outputs_.reserve(words().pieces.size());
    for (std::size_t i = 0; i < words().pieces.size(); ++i) {
      const auto& text = words().pieces[i];
      outputs_.push_back(literal[i] ? text : bytes_of_alphabet(text).value_or(text));
    }
    if (options_.whole_words)
      for (std::size_t i = 0; i < outputs_.size(); ++i)
        if (!literal[i])
          whole_.emplace(outputs_[i], static_cast<token_id>(i));
  }

private:
  void encode_part(std::string_view text, part_place, std::vector<token_id>& out) const override {
    std::string changed;
    if (options_.compose) {
      changed = nfc(text);
      text = changed;
    }
    std::string prefixed;
    if (options_.prefix_space && text.substr(0, 1) != " ") {
      prefixed = " " + std::string(text);
      text = prefixed;
    }
    pair_merger merger;
    std::vector<merge_symbol> symbols;
    for (const auto word : splitter_.split(text)) {
      if (options_.whole_words)
        if (const auto at = whole_.find(word); at != whole_.end()) {
          out.push_back(at->second);
          continue;
        }
      symbols.clear();
      // Bytes that the vocabulary lacks vanish before merging, as in the reference.
      for (const char c : word)
        if (const auto id = bytes_[static_cast<unsigned char>(c)]; id >= 0)
          symbols.push_back({0, 1, id});
      merger.run(symbols, [this](const merge_symbol& a, const merge_symbol& b) {
        return merges_.find(a.id, b.id);
      });
      for (const auto& s : symbols)
        out.push_back(s.id);
    }
  }

  bpe_options options_;
  pretokenizer splitter_;
  merge_table merges_;
  std::array<token_id, 256> bytes_{};
  std::unordered_map<std::string_view, token_id> whole_; // views into outputs_
};

} // namespace

std::shared_ptr<const tokenizer> make_bpe_tokenizer(vocabulary v, const merge_list& merges,
                                                    bpe_options options) {
  const auto file = v.file;
  try {
    return std::make_shared<bpe_tokenizer>(std::move(v), merges, std::move(options));
  } catch (const std::invalid_argument& e) {
    bad_tokenizer(file, "pre_tokenizer", e.what());
  }
}

} // namespace hexgen::compute
