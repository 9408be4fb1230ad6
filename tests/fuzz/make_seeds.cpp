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

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  write_seeds(argv[1]);
}
