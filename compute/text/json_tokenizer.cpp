// tokenizer.json of Hugging Face's tokenizers: the parts that Llama-family models use. Anything
// else in the file that would change the ids is an error that names it.
#include "compute/text/bpe_tokenizer.hpp"
#include "compute/text/sentencepiece_tokenizer.hpp"
#include "compute/text/tokenizer_readers.hpp"
#include "compute/text/tokenizer_settings.hpp"
#include "compute/text/vocabulary.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <optional>

namespace hexgen::compute {

namespace {

using json = nlohmann::json;

struct file_reader {
  vocabulary v;
  merge_list merges;
  bpe_options bpe;
  sentencepiece_options pieces;
  bool byte_level = false;
  bool byte_fallback = false;

  [[noreturn]] void bad(const std::string& field, const std::string& what) const {
    bad_tokenizer(v.file, field, what);
  }

  // null when absent
  static const json& get(const json& object, const char* key) {
    static const json none;
    const auto at = object.is_object() ? object.find(key) : object.end();
    return !object.is_object() || at == object.end() ? none : *at;
  }
  static std::string text(const json& object, const char* key) {
    const auto& value = get(object, key);
    return value.is_string() ? value.get<std::string>() : std::string();
  }
  static bool flag(const json& object, const char* key, bool otherwise) {
    const auto& value = get(object, key);
    return value.is_boolean() ? value.get<bool>() : otherwise;
  }

  void place(std::size_t id, const std::string& piece, token_kind kind) {
    if (id >= max_vocabulary)
      bad("vocabulary", "id " + std::to_string(id) + " is too large");
    if (id >= v.pieces.size()) {
      v.pieces.resize(id + 1);
      v.kinds.resize(id + 1, token_kind::unused);
    }
    v.pieces[id] = piece;
    v.kinds[id] = kind;
  }

  static std::optional<std::size_t> id_of(const json& value) {
    if (!value.is_number_integer() || value < 0 || value >= max_vocabulary)
      return std::nullopt;
    return value.get<std::size_t>();
  }

  void read_model(const json& model) {
    if (const auto type = text(model, "type"); !type.empty() && type != "BPE")
      bad("model.type", "'" + type + "' is not served (known: BPE)");
    for (const auto* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!text(model, key).empty())
        bad(std::string("model.") + key, "is not served");
    byte_fallback = flag(model, "byte_fallback", false);
    bpe.whole_words = flag(model, "ignore_merges", false);
    const auto& vocab = get(model, "vocab");
    if (!vocab.is_object() || vocab.size() > max_vocabulary)
      bad("model.vocab", "is no object of at most 1,000,000 tokens");
    for (const auto& [piece, value] : vocab.items()) {
      const auto id = id_of(value);
      if (!id)
        bad("model.vocab", "'" + piece + "' has no proper id");
      const bool byte = byte_fallback && piece.size() == 6 && piece.rfind("<0x", 0) == 0;
      place(*id, piece, byte ? token_kind::byte : token_kind::normal);
    }
    const auto& list = get(model, "merges");
    if (!list.is_array() || list.size() > max_merges)
      bad("model.merges", "is no list of at most 2,000,000 merges");
    merges.reserve(list.size());
    for (const auto& entry : list) {
      const auto where = "model.merges[" + std::to_string(merges.size()) + "]";
      if (entry.is_string()) {
        const auto pair = entry.get<std::string>();
        const auto space = pair.find(' ', 1);
        if (space == std::string::npos)
          bad(where, "has no space between two halves");
        merges.emplace_back(pair.substr(0, space), pair.substr(space + 1));
      } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
                 entry[1].is_string()) {
        merges.emplace_back(entry[0].get<std::string>(), entry[1].get<std::string>());
      } else {
        bad(where, "is no pair of texts");
      }
    }
    unknown_text = text(model, "unk_token");
  }

  void read_added(const json& list) {
    if (list.is_null())
      return;
    if (!list.is_array() || list.size() > max_vocabulary)
      bad("added_tokens", "is no list");
    for (std::size_t i = 0; i < list.size(); ++i) {
      const auto where = "added_tokens[" + std::to_string(i) + "]";
      const auto& entry = list[i];
      const auto id = id_of(get(entry, "id"));
      const auto content = text(entry, "content");
      if (!id || content.empty())
        bad(where, "needs an id and a content");
      if (flag(entry, "single_word", false))
        bad(where + ".single_word", "is not served");
      const bool special = flag(entry, "special", false);
      const bool unknown = content == unknown_text;
      place(*id, content,
            unknown   ? token_kind::unknown
            : special ? token_kind::control
                      : token_kind::user_defined);
      v.added.push_back({static_cast<token_id>(*id), special, flag(entry, "lstrip", false),
                         flag(entry, "rstrip", false)});
    }
  }

  void read_normalizer(const json& step) {
    const auto type = text(step, "type");
    if (step.is_null())
      return;
    if (type == "Sequence") {
      for (const auto& inner : get(step, "normalizers"))
        if (text(inner, "type") == "Sequence")
          bad("normalizer", "sequences in sequences are not served");
        else
          read_normalizer(inner);
    } else if (type == "NFC") {
      bpe.compose = true;
    } else if (type == "Prepend" && text(step, "prepend") == "\xE2\x96\x81") {
      pieces.prefix = space_prefix::parts;
      marks_spaces = true;
    } else if (type == "Replace" && text(get(step, "pattern"), "String") == " " &&
               text(step, "content") == "\xE2\x96\x81") {
      marks_spaces = true;
    } else {
      bad("normalizer.type", "'" + type +
                                 "' is not served (known: NFC, Prepend and Replace of "
                                 "spaces)");
    }
  }

  void read_split(const json& step) {
    const auto& pattern = get(step, "pattern");
    const auto regex = text(pattern, "Regex");
    const auto literal = text(pattern, "String");
    if (regex.empty() == literal.empty() || regex.size() + literal.size() > max_piece_bytes)
      bad("pre_tokenizer.pattern", "needs a Regex or a String");
    const auto behavior = text(step, "behavior");
    const bool invert = flag(step, "invert", false);
    split_rule rule{regex.empty() ? literal : regex, regex.empty(), false, false};
    if (behavior == "Removed")
      (invert ? rule.drop_rest : rule.drop_matches) = true;
    else if (behavior != "Isolated")
      bad("pre_tokenizer.behavior", "'" + behavior + "' is not served");
    bpe.rules.push_back(std::move(rule));
  }

  void read_pre_tokenizer(const json& step) {
    const auto type = text(step, "type");
    if (step.is_null())
      return;
    if (type == "Sequence") {
      for (const auto& inner : get(step, "pretokenizers"))
        if (text(inner, "type") == "Sequence")
          bad("pre_tokenizer", "sequences in sequences are not served");
        else
          read_pre_tokenizer(inner);
    } else if (type == "ByteLevel") {
      byte_level = true;
      bpe.prefix_space = flag(step, "add_prefix_space", true);
      if (flag(step, "use_regex", true))
        bpe.rules.push_back(gpt2_split_rule());
    } else if (type == "Digits") {
      bpe.rules.push_back({flag(step, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)"});
    } else if (type == "Split") {
      read_split(step);
    } else if (type == "Metaspace") {
      const auto scheme = text(step, "prepend_scheme");
      if (text(step, "replacement") != "\xE2\x96\x81")
        bad("pre_tokenizer.replacement", "only U+2581 is served");
      marks_spaces = true;
      pieces.split_words = flag(step, "split", true);
      if (scheme == "never")
        pieces.prefix = space_prefix::never;
      else if (scheme == "first")
        pieces.prefix = space_prefix::start;
      else if (flag(step, "add_prefix_space", true))
        pieces.prefix = space_prefix::parts_if_absent;
    } else {
      bad("pre_tokenizer.type", "'" + type +
                                    "' is not served (known: Sequence, ByteLevel, Digits, Split, "
                                    "Metaspace)");
    }
  }

  // A template that begins with a special token puts that token in front of every prompt.
  void read_post_processor(const json& step) {
    if (text(step, "type") == "Sequence") {
      for (const auto& inner : get(step, "processors"))
        if (text(inner, "type") != "Sequence")
          read_post_processor(inner);
      return;
    }
    if (text(step, "type") != "TemplateProcessing")
      return;
    const auto& single = get(step, "single");
    if (!single.is_array() || single.empty())
      return;
    const auto name = text(get(single[0], "SpecialToken"), "id");
    const auto at = std::find(v.pieces.begin(), v.pieces.end(), name);
    if (name.empty() || at == v.pieces.end())
      return;
    v.bos = static_cast<token_id>(at - v.pieces.begin());
    v.add_bos = true;
  }

  std::string unknown_text;
  bool marks_spaces = false;
};

} // namespace

std::shared_ptr<const tokenizer> tokenizer_of_json(const std::string& name, std::string_view text,
                                                   const tokenizer_settings& settings) {
  file_reader r;
  r.v.file = name;
  const auto root = json::parse(text, nullptr, false);
  if (!root.is_object())
    r.bad("tokenizer.json", "is not a JSON object");
  r.pieces.prefix = space_prefix::never;
  r.read_model(file_reader::get(root, "model"));
  r.read_added(file_reader::get(root, "added_tokens"));
  r.read_normalizer(file_reader::get(root, "normalizer"));
  r.read_pre_tokenizer(file_reader::get(root, "pre_tokenizer"));
  r.read_post_processor(file_reader::get(root, "post_processor"));
  if (r.byte_level == r.marks_spaces)
    r.bad("pre_tokenizer", "is neither byte-level nor SentencePiece-like");
  if (!r.unknown_text.empty()) {
    const auto ids = piece_ids(r.v);
    if (const auto at = ids.find(r.unknown_text); at != ids.end())
      r.v.unknown = at->second;
  }
  apply_settings(r.v, settings);
  complete_vocabulary(r.v);
  if (r.byte_level)
    return make_bpe_tokenizer(std::move(r.v), r.merges, std::move(r.bpe));
  if (r.merges.empty())
    r.bad("model.merges", "is empty");
  return make_sentencepiece_tokenizer(std::move(r.v), r.merges, r.pieces);
}

} // namespace hexgen::compute
