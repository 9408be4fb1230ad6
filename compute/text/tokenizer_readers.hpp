// The files a tokenizer can come from.
#pragma once

#include "compute/tokenizer.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace hexgen::compute {

class gguf_file;

/// From tokenizer.ggml.* metadata: models gpt2 (byte-level) and llama (SentencePiece).
/// Throws file_error.
[[nodiscard]] std::shared_ptr<const tokenizer> tokenizer_of_gguf(const gguf_file& file);

/// The settings that lie beside a Hugging Face tokenizer, as JSON texts; empty when absent.
struct tokenizer_settings {
  std::string tokenizer_config;  // tokenizer_config.json
  std::string generation_config; // generation_config.json
  std::string chat_template;     // chat_template.jinja: wins over tokenizer_config.json's
};

/// From the text of a tokenizer.json. `name` is used in messages. Throws file_error.
[[nodiscard]] std::shared_ptr<const tokenizer>
tokenizer_of_json(const std::string& name, std::string_view text,
                  const tokenizer_settings& settings);

/// From the bytes of a SentencePiece tokenizer.model (Protobuf). Throws file_error.
[[nodiscard]] std::shared_ptr<const tokenizer>
tokenizer_of_model(const std::string& name, std::string_view bytes,
                   const tokenizer_settings& settings);

} // namespace hexgen::compute
