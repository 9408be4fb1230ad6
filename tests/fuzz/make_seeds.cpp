// Writes small valid inputs, so that the fuzzers start behind the magic numbers:
// fuzz_seeds FOLDER makes FOLDER/NAME/* for the targets fuzz_NAME.
#include "compute/synthetic.hpp"
#include "tests/compute/files/model_writer.hpp"

#include <cstdio>

using namespace hexgen::compute;
using namespace hexgen::tests;

namespace {

model_config minute(const char* architecture) {
  auto config = tiny_config(architecture);
  config.layers = 1;
  config.hidden = 8;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 4;
  config.ffn = 8;
  config.vocab = 8;
  return config;
}

void write_seeds(const std::filesystem::path& folder) {
  for (const char* name : {"gguf", "safetensors", "hf_config"})
    std::filesystem::create_directories(folder / name);
  for (const char* architecture : {"llama", "mistral", "qwen2", "qwen3"}) {
    auto config = minute(architecture);
    config.scaling = rope_scaling::yarn;
    config.rope_factor = 4;
    config.rope_original_context = 128;
    const auto model = make_synthetic_model(config, tensor_type::f16, 1);
    write_file(folder / "gguf" / architecture, gguf_bytes(*model));
    write_file(folder / "safetensors" / architecture,
               safetensors_bytes({model->tensors().begin(), model->tensors().begin() + 4}));
    write_file(folder / "hf_config" / architecture, hf_config_json(config));
  }
  gguf_writer tokens;
  tokens.add_strings("tokenizer.ggml.tokens", {"a", "b", "ab"});
  tokens.add_i32s("tokenizer.ggml.token_type", {1, 1, 1});
  tokens.add_f32s("tokenizer.ggml.scores", {0, -1, -2});
  tokens.add_bool("tokenizer.ggml.add_bos_token", true);
  write_file(folder / "gguf" / "tokens", tokens.bytes());
}

// Tokenizers, chat templates and schemas are text.
void write_text_seeds(const std::filesystem::path& folder) {
  const auto put = [&](const char* target, const char* name, const char* text) {
    std::filesystem::create_directories(folder / target);
    write_file(folder / target / name, std::string_view(text));
  };
  put("tokenizer_json", "byte_level", R"x({
    "added_tokens": [{"id": 4, "content": "<s>", "special": true, "lstrip": true}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\s+(?!\\S)"}, "behavior": "Isolated"},
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "\u0120": 2, "\u0120b": 3, "<s>": 4},
              "merges": ["\u0120 b"]}})x");
  put("tokenizer_json", "byte_fallback", R"x({
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "vocab": {"<unk>": 0,
              "<0x0A>": 1, "a": 2, "\u2581": 3, "\u2581a": 4}, "merges": [["\u2581", "a"]]}})x");
  put("chat_template", "chatml", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n");
  put("chat_template", "qwen3", "<|im_start|> enable_thinking </think>");
  put("chat_template", "llama2", "<<SYS>> [INST]");
  put("chat_template", "llama3", "<|start_header_id|> Cutting Knowledge Date");
  put("chat_template", "mistral", "'[INST] ' ' [/INST]' eos_token + ' '");
  put("json_schema", "object", R"x({"type": "object", "properties": {"a": {"type": "string",
    "maxLength": 4}, "b": {"type": "integer", "minimum": -3, "maximum": 120}, "c": {"enum": [1,
    "x", null]}}, "required": ["a"], "additionalProperties": {"type": "boolean"}})x");
  put("json_schema", "array", R"x({"type": "array", "prefixItems": [{"const": 1}], "items":
    {"$ref": "#/$defs/t"}, "minItems": 1, "maxItems": 3, "$defs": {"t": {"anyOf": [{"type":
    "null"}, {"type": "array", "items": {"$ref": "#/$defs/t"}}]}}})x");
  put("json_schema", "pattern", R"x({"type": "string", "pattern": "^(a|[b-d]{2,3})\\d+x?$"})x");
  put("json_schema", "any", "json_object");
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  write_seeds(argv[1]);
  write_text_seeds(argv[1]);
}
