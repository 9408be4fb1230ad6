#include "compute/files/half.hpp"
#include "compute/files/hf_model.hpp"
#include "compute/synthetic.hpp"
#include "tests/catch.hpp"
#include "tests/compute/files/model_writer.hpp"

#include <cstring>
#include <fstream>

using namespace hexgen::compute;
using namespace hexgen::tests;

namespace {

model_config small(const char* architecture) {
  auto config = tiny_config(architecture);
  config.rope_interleaved = false;
  config.hidden = 32;
  config.head_dim = 16;
  config.ffn = 64;
  config.vocab = 40;
  return config;
}

std::string error_of(const std::filesystem::path& folder) {
  try {
    (void)open_model(folder);
  } catch (const file_error& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void check_same_tensors(const model_file& have, const model_file& want) {
  CHECK(have.tensors().size() == want.tensors().size());
  CHECK(have.total_bytes() == want.total_bytes());
  for (const auto& tensor : want.tensors()) {
    INFO(tensor.name);
    const auto* found = have.find(tensor.name);
    REQUIRE(found != nullptr);
    CHECK(found->type == tensor.type);
    REQUIRE(found->rows == tensor.rows);
    REQUIRE(found->columns == tensor.columns);
    CHECK(std::memcmp(found->bytes.data(), tensor.bytes.data(), tensor.bytes.size()) == 0);
  }
}

} // namespace

TEST_CASE("every family comes back from a Hugging Face folder, whole or in shards") {
  for (const char* architecture : {"llama", "mistral", "qwen2", "qwen3"})
    for (const int shards : {1, 3}) {
      INFO(architecture << " in " << shards);
      auto config = small(architecture);
      config.rope_theta = 12345.5;
      config.norm_epsilon = 3e-6F;
      const auto model = make_synthetic_model(config, tensor_type::bf16, 3);
      const temporary_folder folder;
      write_hf_folder(*model, folder.path(), shards);
      const auto back = open_model(folder.path());
      check_same_tensors(*back, *model);
      CHECK(back->config().name == config.name);
      CHECK(back->config().architecture == architecture);
      CHECK(back->config().layers == config.layers);
      CHECK(back->config().hidden == config.hidden);
      CHECK(back->config().heads == config.heads);
      CHECK(back->config().kv_heads == config.kv_heads);
      CHECK(back->config().head_dim == config.head_dim);
      CHECK(back->config().ffn == config.ffn);
      CHECK(back->config().vocab == config.vocab);
      CHECK(back->config().context == config.context);
      CHECK(back->config().norm_epsilon == config.norm_epsilon);
      CHECK(back->config().rope_theta == config.rope_theta);
      CHECK(back->config().tied_head == config.tied_head);
      CHECK(back->config().qkv_bias == config.qkv_bias);
      CHECK(back->config().qk_norm == config.qk_norm);
      CHECK_FALSE(back->config().rope_interleaved);
    }
}

TEST_CASE("a tied head's copy in a Hugging Face folder is left aside") {
  auto config = small("qwen2");
  config.tied_head = false;
  const auto model = make_synthetic_model(config, tensor_type::f16, 3);
  const temporary_folder folder;
  write_hf_folder(*model, folder.path());
  CHECK(open_model(folder.path())->find("output.weight") != nullptr);
  config.tied_head = true;
  write_file(folder.path() / "config.json", hf_config_json(config));
  const auto back = open_model(folder.path());
  CHECK(back->config().tied_head);
  CHECK(back->find("output.weight") == nullptr);
}

TEST_CASE("tensors off their element's boundary are copied onto it") {
  const auto model = make_synthetic_model(small("llama"), tensor_type::f16, 5);
  const temporary_folder folder;
  write_hf_folder(*model, folder.path());
  const auto path = folder.path() / "model.safetensors";
  // Shift the data by one byte: a space more at the header's end.
  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  bytes.insert(8 + length, " ");
  ++length;
  std::memcpy(bytes.data(), &length, 8);
  write_file(path, bytes);
  const auto back = open_model(folder.path());
  check_same_tensors(*back, *model);
  for (const auto& tensor : back->tensors())
    CHECK(reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) %
              static_cast<std::uintptr_t>(block_bytes(tensor.type)) ==
          0);
}

TEST_CASE("a Hugging Face folder that is not whole is refused by name") {
  const auto model = make_synthetic_model(small("llama"), tensor_type::f32, 5);
  const temporary_folder folder;
  CHECK(contains(error_of(folder.path()), "config.json: cannot open"));
  write_file(folder.path() / "config.json", hf_config_json(model->config()));
  CHECK(contains(error_of(folder.path()), "neither model.safetensors nor"));
  write_hf_folder(*model, folder.path(), 2);
  REQUIRE(error_of(folder.path()) == "no error");
  const auto index = folder.path() / "model.safetensors.index.json";
  write_file(index, std::string_view("{}"));
  CHECK(contains(error_of(folder.path()), "weight_map: missing"));
  write_file(index, std::string_view(R"({"weight_map": {"model.norm.weight": 1}})"));
  CHECK(contains(error_of(folder.path()), "want a file's name"));
  for (const char* name : {"../model-1.safetensors", "/etc/passwd", "sub/x.safetensors", ""}) {
    write_file(index, R"({"weight_map": {"model.norm.weight": ")" + std::string(name) + "\"}}");
    CHECK(contains(error_of(folder.path()), "is no name of a shard"));
  }
  write_file(index, std::string_view(R"({"weight_map": {"x": "model-9.safetensors"}})"));
  CHECK(contains(error_of(folder.path()), "model-9.safetensors: cannot open"));
  write_file(index, std::string_view(R"({"weight_map": {"x": "model-1.safetensors"}})"));
  CHECK(contains(error_of(folder.path()), "'x': not in 'model-1.safetensors'"));
  write_file(index,
             std::string_view(R"({"weight_map": {"lm_head.weight": "model-0.safetensors"}})"));
  CHECK(error_of(folder.path()) != "no error");
  std::filesystem::create_directory(folder.path() / "model-7.safetensors");
  write_file(index, std::string_view(R"({"weight_map": {"x": "model-7.safetensors"}})"));
  CHECK(contains(error_of(folder.path()), "not a regular file"));
}

TEST_CASE("names of Hugging Face tensors become GGUF's") {
  CHECK(gguf_tensor_name("model.embed_tokens.weight") == "token_embd.weight");
  CHECK(gguf_tensor_name("model.layers.11.self_attn.o_proj.weight") == "blk.11.attn_output.weight");
  CHECK(gguf_tensor_name("model.layers.0.post_attention_layernorm.weight") ==
        "blk.0.ffn_norm.weight");
  CHECK(gguf_tensor_name("model.layers.x.mlp.up_proj.weight").empty());
  CHECK(gguf_tensor_name("model.layers..mlp.up_proj.weight").empty());
  CHECK(gguf_tensor_name("model.layers.1").empty());
  CHECK(gguf_tensor_name("transformer.wte.weight").empty());
}
