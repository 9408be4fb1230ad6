#include "compute/files/gguf.hpp"
#include "compute/text/bpe_tokenizer.hpp"
#include "compute/text/sentencepiece_tokenizer.hpp"
#include "compute/text/tokenizer_readers.hpp"
#include "compute/text/vocabulary.hpp"

#include <algorithm>
#include <stdexcept>

namespace hexgen::compute {

namespace {

token_id id_or(const gguf_file& file, const char* key, token_id otherwise) {
  const auto* value = file.find(key);
  // Files from older converters write 2^32 - 1 for "none".
  if (!value)
    return otherwise;
  const auto id = value->as_integer(-1, 0xFFFFFFFFLL);
  return id == 0xFFFFFFFFLL ? -1 : static_cast<token_id>(std::min<std::int64_t>(id, 1 << 30));
}

bool flag_or(const gguf_file& file, const char* key, bool otherwise) {
  const auto* value = file.find(key);
  return value ? value->as_boolean() : otherwise;
}

std::string text_or(const gguf_file& file, const char* key, const char* otherwise) {
  const auto* value = file.find(key);
  return std::string(value ? value->as_string() : std::string_view(otherwise));
}

vocabulary read_vocabulary(const gguf_file& file) {
  vocabulary v;
  v.file = file.name();
  const auto& tokens = file.at("tokenizer.ggml.tokens");
  if (tokens.count() > max_vocabulary)
    bad_tokenizer(v.file, "tokenizer.ggml.tokens",
                  "has " + std::to_string(tokens.count()) + " entries");
  for (const auto piece : tokens.as_strings())
    v.pieces.emplace_back(piece);
  v.kinds.assign(v.pieces.size(), token_kind::normal);
  if (const auto* types = file.find("tokenizer.ggml.token_type")) {
    const auto values = types->as_integers();
    if (values.size() != v.pieces.size())
      bad_tokenizer(v.file, "tokenizer.ggml.token_type",
                    std::to_string(values.size()) + " entries for " +
                        std::to_string(v.pieces.size()) + " tokens");
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i] < 0 || values[i] > 6)
        bad_tokenizer(v.file, "tokenizer.ggml.token_type[" + std::to_string(i) + "]",
                      "unknown type " + std::to_string(values[i]));
      v.kinds[i] = values[i] == 0 ? token_kind::normal : static_cast<token_kind>(values[i]);
    }
  }
  v.bos = id_or(file, "tokenizer.ggml.bos_token_id", -1);
  v.eos = id_or(file, "tokenizer.ggml.eos_token_id", -1);
  v.unknown = id_or(file, "tokenizer.ggml.unknown_token_id", -1);
  for (const auto* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = id_or(file, key, -1); id >= 0)
      v.end_ids.push_back(id);
  v.chat_template = text_or(file, "tokenizer.chat_template", "");
  return v;
}

merge_list read_merges(const gguf_file& file) {
  const auto& value = file.at("tokenizer.ggml.merges");
  if (value.count() > max_merges)
    bad_tokenizer(file.name(), "tokenizer.ggml.merges",
                  "has " + std::to_string(value.count()) + " entries");
  merge_list merges;
  merges.reserve(value.count());
  for (const auto text : value.as_strings()) {
    const auto space = text.find(' ', 1);
    if (space == std::string_view::npos)
      bad_tokenizer(file.name(), "tokenizer.ggml.merges[" + std::to_string(merges.size()) + "]",
                    "has no space between two halves");
    merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return merges;
}

} // namespace

std::shared_ptr<const tokenizer> tokenizer_of_gguf(const gguf_file& file) {
  const auto model = std::string(file.at("tokenizer.ggml.model").as_string());
  auto v = read_vocabulary(file);
  if (model == "gpt2") {
    const auto pre = text_or(file, "tokenizer.ggml.pre", "default");
    bpe_options options;
    try {
      options.rules = split_rules_of(pre);
    } catch (const std::invalid_argument& e) {
      bad_tokenizer(v.file, "tokenizer.ggml.pre", e.what());
    }
    const bool llama3 = pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3";
    options.whole_words = llama3;
    options.compose = pre == "qwen2" || pre == "deepseek-r1-qwen";
    options.prefix_space = flag_or(file, "tokenizer.ggml.add_space_prefix", false);
    v.add_bos = flag_or(file, "tokenizer.ggml.add_bos_token", llama3);
    complete_vocabulary(v);
    return make_bpe_tokenizer(std::move(v), read_merges(file), std::move(options));
  }
  if (model == "llama") {
    v.scores = file.at("tokenizer.ggml.scores").as_floats();
    v.add_bos = flag_or(file, "tokenizer.ggml.add_bos_token", true);
    complete_vocabulary(v);
    sentencepiece_options options;
    options.prefix = flag_or(file, "tokenizer.ggml.add_space_prefix", true) ? space_prefix::parts
                                                                            : space_prefix::never;
    return make_sentencepiece_tokenizer(std::move(v), {}, options);
  }
  bad_tokenizer(v.file, "tokenizer.ggml.model",
                "'" + model + "' is not served (known: gpt2, llama)");
}

} // namespace hexgen::compute
