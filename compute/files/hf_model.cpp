#include "compute/files/hf_model.hpp"

#include "compute/files/hf_config.hpp"
#include "compute/files/json_file.hpp"
#include "compute/files/mapped_file.hpp"
#include "compute/files/safetensors.hpp"
#include "compute/files/stored_model.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <utility>

namespace hexgen::compute {

namespace {

constexpr std::size_t max_config_bytes = 4 << 20;
constexpr std::size_t max_index_bytes = 16 << 20;
constexpr std::size_t max_shards = 4096;

constexpr std::pair<std::string_view, std::string_view> layer_names[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
};

/// What the views of an opened folder point into.
struct folder_storage {
  std::vector<std::shared_ptr<const safetensors_file>> files;
  std::deque<std::string> names;
  std::vector<std::unique_ptr<std::byte[]>> copies;
};

class folder_reader {
public:
  explicit folder_reader(const std::filesystem::path& folder) : folder_(folder) {}

  std::shared_ptr<const model_file> read() {
    const auto config_path = folder_ / "config.json";
    auto config =
        parse_hf_config(read_text_file(config_path, max_config_bytes), config_path.string());
    if (config.name.empty())
      config.name = std::filesystem::absolute(folder_).lexically_normal().filename().string();
    tied_head_ = config.tied_head;
    const auto single = folder_ / "model.safetensors";
    const auto index = folder_ / "model.safetensors.index.json";
    std::error_code error;
    if (std::filesystem::exists(index, error))
      read_index(index);
    else if (std::filesystem::exists(single, error))
      read_all(single);
    else
      throw file_error(folder_.string() +
                       ": neither model.safetensors nor model.safetensors.index.json");
    return make_stored_model(folder_.string(), std::move(config), std::move(tensors_), storage_);
  }

private:
  void read_all(const std::filesystem::path& path) {
    const auto file = storage_->files.emplace_back(safetensors_file::open(path));
    for (const auto& tensor : file->tensors())
      add(*file, tensor);
  }

  void read_index(const std::filesystem::path& path) {
    const auto name = path.string();
    const auto object = parse_json_object(read_text_file(path, max_index_bytes), name);
    const auto map = object.find("weight_map");
    if (map == object.end() || !map->is_object())
      throw file_error(name + ": weight_map: missing or not an object");
    std::map<std::string, std::shared_ptr<const safetensors_file>> shards;
    for (const auto& [tensor, shard] : map->items()) {
      const auto where = name + ": weight_map: " + in_quotes(tensor);
      if (!shard.is_string())
        throw file_error(where + ": want a file's name");
      const auto& shard_name = shard.get_ref<const std::string&>();
      // A plain name inside the folder, so that an index cannot lead anywhere else.
      if (!shard_name.ends_with(".safetensors") ||
          shard_name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
        throw file_error(where + ": " + in_quotes(shard_name) + " is no name of a shard");
      auto& file = shards[shard_name];
      if (shards.size() > max_shards)
        throw file_error(name + ": weight_map: more than " + std::to_string(max_shards) +
                         " shards");
      if (file == nullptr)
        file = storage_->files.emplace_back(safetensors_file::open(folder_ / shard_name));
      const auto* view = file->find(tensor);
      if (view == nullptr)
        throw file_error(where + ": not in " + in_quotes(shard_name));
      add(*file, *view);
    }
  }

  void add(const safetensors_file& file, tensor_view tensor) {
    if (tensor.name.ends_with("rotary_emb.inv_freq"))
      return; // follows from the configuration
    auto name = gguf_tensor_name(tensor.name);
    if (name.empty())
      throw file_error(file.name() + ": tensor " + in_quotes(tensor.name) +
                       ": not part of a model of the Llama family");
    if (name == "output.weight" && tied_head_)
      return; // a copy of the embedding
    tensor.name = storage_->names.emplace_back(std::move(name));
    const auto boundary = static_cast<std::uintptr_t>(block_bytes(tensor.type));
    if (reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % boundary != 0) {
      auto& copy = storage_->copies.emplace_back(new std::byte[tensor.bytes.size()]);
      std::memcpy(copy.get(), tensor.bytes.data(), tensor.bytes.size());
      tensor.bytes = {copy.get(), tensor.bytes.size()};
    }
    tensors_.push_back(tensor);
  }

  std::filesystem::path folder_;
  bool tied_head_ = false;
  std::shared_ptr<folder_storage> storage_ = std::make_shared<folder_storage>();
  std::vector<tensor_view> tensors_;
};

} // namespace

std::string gguf_tensor_name(std::string_view hf_name) {
  if (hf_name == "model.embed_tokens.weight")
    return "token_embd.weight";
  if (hf_name == "model.norm.weight")
    return "output_norm.weight";
  if (hf_name == "lm_head.weight")
    return "output.weight";
  constexpr std::string_view layers = "model.layers.";
  if (!hf_name.starts_with(layers))
    return {};
  hf_name.remove_prefix(layers.size());
  const auto dot = hf_name.find('.');
  if (dot == std::string_view::npos || dot == 0)
    return {};
  const auto layer = hf_name.substr(0, dot);
  const auto rest = hf_name.substr(dot + 1);
  if (!std::all_of(layer.begin(), layer.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return {};
  for (const auto& [hf, gguf] : layer_names)
    if (rest == hf)
      return "blk." + std::string(layer) + "." + std::string(gguf);
  return {};
}

std::shared_ptr<const model_file> open_hf_model(const std::filesystem::path& folder) {
  return folder_reader(folder).read();
}

} // namespace hexgen::compute
