#include "compute/files/hf_config.hpp"
#include "compute/model_file.hpp"
#include "tests/catch.hpp"

#include <string>

using namespace hexgen::compute;

namespace {

const std::string sizes = R"("num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
  "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 4096)";

model_config parse(const std::string& type, const std::string& more) {
  return parse_hf_config("{\"model_type\": \"" + type + "\", " + sizes +
                             (more.empty() ? "" : ", " + more) + "}",
                         "config.json");
}

std::string error_of(const std::string& json) {
  try {
    (void)parse_hf_config(json, "config.json");
  } catch (const file_error& error) {
    return error.what();
  }
  return "no error";
}

std::string error_with(const std::string& more) {
  return error_of("{\"model_type\": \"llama\", " + sizes + ", " + more + "}");
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("config.json defaults follow the family") {
  const auto llama = parse("llama", "");
  CHECK(llama.kv_heads == 4);
  CHECK(llama.head_dim == 16);
  CHECK_FALSE(llama.rope_interleaved);
  CHECK_FALSE(llama.qkv_bias);
  CHECK_FALSE(llama.tied_head);
  CHECK(llama.norm_epsilon == 1e-6F);
  CHECK(llama.rope_theta == 10000.0);
  CHECK(parse("qwen2", "").qkv_bias);
  const auto qwen3 = parse("qwen3", "\"num_key_value_heads\": 2, \"tie_word_embeddings\": true");
  CHECK(qwen3.qk_norm);
  CHECK(qwen3.head_dim == 128);
  CHECK(qwen3.kv_heads == 2);
  CHECK(qwen3.tied_head);
  CHECK(parse("mistral", "\"head_dim\": 32").head_dim == 32);
}

TEST_CASE("a sliding window bounds the context, where the family slides") {
  CHECK(parse("mistral", "\"sliding_window\": 1024").context == 1024);
  CHECK(parse("mistral", "\"sliding_window\": null").context == 4096);
  CHECK(parse("qwen2", "\"sliding_window\": 1024").context == 4096);
  CHECK(parse("qwen2", "\"sliding_window\": 1024, \"use_sliding_window\": true").context == 1024);
}

TEST_CASE("rope scaling is read in old and new spelling") {
  const auto linear = parse("llama", R"("rope_scaling": {"type": "linear", "factor": 4.0})");
  CHECK(linear.scaling == rope_scaling::linear);
  CHECK(linear.rope_factor == 4.0);
  const auto llama3 = parse("llama", R"("rope_theta": 500000.0, "rope_scaling":
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 1024})");
  CHECK(llama3.scaling == rope_scaling::llama3);
  CHECK(llama3.rope_original_context == 1024);
  CHECK(llama3.rope_theta == 500000.0);
  const auto yarn = parse("qwen2", R"("rope_parameters": {"rope_theta": 1000000.0,
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048})");
  CHECK(yarn.scaling == rope_scaling::yarn);
  CHECK(yarn.rope_original_context == 2048);
  CHECK(yarn.rope_theta == 1000000.0);
  CHECK(parse("llama", R"("rope_parameters": {"rope_type": "default", "rope_theta": 7.0})")
            .rope_theta == 7.0);
}

TEST_CASE("a config.json that cannot be served is refused by field") {
  CHECK(contains(error_of(""), "not valid JSON"));
  CHECK(contains(error_of("[]"), "not a JSON object"));
  CHECK(contains(error_of("{}"), "model_type"));
  CHECK(contains(error_of(R"({"model_type": "gpt2"})"), "model_type: 'gpt2'"));
  CHECK(contains(error_of(R"({"model_type": "llama"})"), "num_hidden_layers: missing"));
  CHECK(contains(error_of(R"({"model_type": 3})"), "model_type: want a string"));
  CHECK(contains(error_of(std::string(100000, '[')), "levels"));
  CHECK(contains(error_of("{\"a\":" + std::string(100000, '[')), "levels"));
  CHECK(contains(error_with("\"num_key_value_heads\": 3"), "not a multiple"));
  CHECK(contains(error_with("\"num_key_value_heads\": 8"), "KV heads"));
  CHECK(contains(error_with("\"head_dim\": 15"), "odd"));
  CHECK(contains(error_with("\"head_dim\": 2.5"), "head_dim: want an integer"));
  CHECK(contains(error_with("\"head_dim\": -1"), "head_dim: lies outside"));
  CHECK(contains(error_with("\"head_dim\": 18446744073709551615"), "head_dim: lies outside"));
  CHECK(contains(error_with("\"vocab_size\": 2000000000"), "vocabulary"));
  CHECK(contains(error_with("\"rope_theta\": 0"), "RoPE theta"));
  CHECK(contains(error_with("\"rope_theta\": \"x\""), "rope_theta: want a finite number"));
  CHECK(contains(error_with("\"rms_norm_eps\": -1"), "RMS norm epsilon"));
  CHECK(contains(error_with("\"hidden_act\": \"gelu\""), "hidden_act"));
  CHECK(contains(error_with("\"attention_bias\": true"), "attention_bias"));
  CHECK(contains(error_with("\"mlp_bias\": true"), "mlp_bias"));
  CHECK(contains(error_with("\"partial_rotary_factor\": 0.5"), "partial_rotary_factor"));
  CHECK(contains(error_with("\"quantization_config\": {}"), "quantization_config"));
  CHECK(contains(error_with("\"rope_scaling\": 3"), "rope_scaling: want an object"));
  CHECK(contains(error_with(R"("rope_scaling": {"type": "linear"})"), "rope_scaling.factor"));
  CHECK(contains(error_with(R"("rope_scaling": {"type": "longrope", "factor": 2})"), "longrope"));
  CHECK(contains(error_with(R"("rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 16})"),
                 "beta_fast"));
  CHECK(contains(error_with(R"("rope_scaling": {"type": "llama3", "factor": 2,
    "low_freq_factor": 4, "high_freq_factor": 4, "original_max_position_embeddings": 9})"),
                 "high frequency factor"));
}
