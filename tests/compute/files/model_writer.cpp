#include "tests/compute/files/model_writer.hpp"

#include "compute/files/hf_model.hpp"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>

namespace hexgen::tests {

using compute::tensor_type;
using compute::tensor_view;

namespace {

template <class T>
void put(std::vector<std::byte>& out, T value) {
  const auto at = out.size();
  out.resize(at + sizeof value);
  std::memcpy(out.data() + at, &value, sizeof value);
}

void put_text(std::vector<std::byte>& out, std::string_view text) {
  put(out, static_cast<std::uint64_t>(text.size()));
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  out.insert(out.end(), first, first + text.size());
}

void pad(std::vector<std::byte>& out, std::size_t alignment) {
  out.resize((out.size() + alignment - 1) / alignment * alignment);
}

std::uint32_t gguf_number(tensor_type type) {
  static constexpr std::uint32_t numbers[] = {0, 1, 30, 8, 2, 3, 6, 7, 20, 12, 13, 14};
  return numbers[static_cast<std::size_t>(type)];
}

const char* safetensors_type(tensor_type type) {
  switch (type) {
  case tensor_type::f32:
    return "F32";
  case tensor_type::f16:
    return "F16";
  case tensor_type::bf16:
    return "BF16";
  default:
    throw std::invalid_argument("safetensors hold no quantised tensors here");
  }
}

/// The inverse of gguf_tensor_name, found by trying the names of one layer.
std::string hf_name(std::string_view gguf) {
  for (const char* whole : {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"})
    if (compute::gguf_tensor_name(whole) == gguf)
      return whole;
  const auto dot = gguf.find('.', 4);
  const auto prefix = "model.layers." + std::string(gguf.substr(4, dot - 4)) + ".";
  for (const char* part :
       {"input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
        "self_attn.v_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.bias",
        "self_attn.v_proj.bias", "self_attn.q_norm.weight", "self_attn.k_norm.weight",
        "self_attn.o_proj.weight", "post_attention_layernorm.weight", "mlp.gate_proj.weight",
        "mlp.up_proj.weight", "mlp.down_proj.weight"})
    if (compute::gguf_tensor_name(prefix + part) == gguf)
      return prefix + part;
  return std::string(gguf);
}

} // namespace

void gguf_writer::begin(std::string_view key, std::uint32_t type) {
  ++values_;
  put_text(metadata_, key);
  put(metadata_, type);
}

void gguf_writer::add_u32(std::string_view key, std::uint32_t value) {
  begin(key, 4);
  put(metadata_, value);
}

void gguf_writer::add_i32(std::string_view key, std::int32_t value) {
  begin(key, 5);
  put(metadata_, value);
}

void gguf_writer::add_f32(std::string_view key, float value) {
  begin(key, 6);
  put(metadata_, value);
}

void gguf_writer::add_bool(std::string_view key, bool value) {
  begin(key, 7);
  put(metadata_, static_cast<std::uint8_t>(value));
}

void gguf_writer::add_u64(std::string_view key, std::uint64_t value) {
  begin(key, 10);
  put(metadata_, value);
}

void gguf_writer::add_string(std::string_view key, std::string_view value) {
  begin(key, 8);
  put_text(metadata_, value);
}

void gguf_writer::add_strings(std::string_view key, const std::vector<std::string>& values) {
  begin(key, 9);
  put(metadata_, std::uint32_t{8});
  put(metadata_, static_cast<std::uint64_t>(values.size()));
  for (const auto& value : values)
    put_text(metadata_, value);
}

void gguf_writer::add_i32s(std::string_view key, const std::vector<std::int32_t>& values) {
  begin(key, 9);
  put(metadata_, std::uint32_t{5});
  put(metadata_, static_cast<std::uint64_t>(values.size()));
  for (const auto value : values)
    put(metadata_, value);
}

void gguf_writer::add_f32s(std::string_view key, const std::vector<float>& values) {
  begin(key, 9);
  put(metadata_, std::uint32_t{6});
  put(metadata_, static_cast<std::uint64_t>(values.size()));
  for (const auto value : values)
    put(metadata_, value);
}

void gguf_writer::set_alignment(std::uint32_t alignment) {
  alignment_ = alignment;
  add_u32("general.alignment", alignment);
}

void gguf_writer::add_tensor(const tensor_view& tensor) {
  tensors_.push_back({std::string(tensor.name),
                      tensor.type,
                      tensor.rows,
                      tensor.columns,
                      {tensor.bytes.begin(), tensor.bytes.end()}});
}

std::vector<std::byte> gguf_writer::bytes() const {
  std::vector<std::byte> out;
  for (const char c : {'G', 'G', 'U', 'F'})
    put(out, c);
  put(out, version_);
  put(out, static_cast<std::uint64_t>(tensors_.size()));
  put(out, values_);
  out.insert(out.end(), metadata_.begin(), metadata_.end());
  std::uint64_t offset = 0;
  for (const auto& tensor : tensors_) {
    put_text(out, tensor.name);
    put(out, std::uint32_t{tensor.rows == 1 ? 1U : 2U});
    put(out, static_cast<std::uint64_t>(tensor.columns));
    if (tensor.rows != 1)
      put(out, static_cast<std::uint64_t>(tensor.rows));
    put(out, gguf_number(tensor.type));
    put(out, offset);
    offset += (tensor.data.size() + alignment_ - 1) / alignment_ * alignment_;
  }
  for (const auto& tensor : tensors_) {
    pad(out, alignment_);
    out.insert(out.end(), tensor.data.begin(), tensor.data.end());
  }
  return out;
}

std::vector<std::byte> gguf_bytes(const compute::model_file& model, std::uint32_t version) {
  const auto& config = model.config();
  const auto u32 = [](int value) { return static_cast<std::uint32_t>(value); };
  const auto key = [&](const char* suffix) { return config.architecture + "." + suffix; };
  gguf_writer out(version);
  out.add_string("general.architecture", config.architecture);
  out.add_string("general.name", config.name);
  out.add_u32(key("block_count"), u32(config.layers));
  out.add_u32(key("context_length"), u32(config.context));
  out.add_u32(key("embedding_length"), u32(config.hidden));
  out.add_u32(key("feed_forward_length"), u32(config.ffn));
  out.add_u32(key("attention.head_count"), u32(config.heads));
  out.add_u32(key("attention.head_count_kv"), u32(config.kv_heads));
  out.add_u32(key("attention.key_length"), u32(config.head_dim));
  out.add_u32(key("attention.value_length"), u32(config.head_dim));
  out.add_u32(key("rope.dimension_count"), u32(config.head_dim));
  out.add_f32(key("rope.freq_base"), static_cast<float>(config.rope_theta));
  out.add_f32(key("attention.layer_norm_rms_epsilon"), config.norm_epsilon);
  if (config.scaling == compute::rope_scaling::linear ||
      config.scaling == compute::rope_scaling::yarn) {
    const bool yarn = config.scaling == compute::rope_scaling::yarn;
    out.add_string(key("rope.scaling.type"), yarn ? "yarn" : "linear");
    out.add_f32(key("rope.scaling.factor"), static_cast<float>(config.rope_factor));
    if (yarn)
      out.add_u32(key("rope.scaling.original_context_length"), u32(config.rope_original_context));
  }
  if (const auto& factors = config.rope_frequency_factors; !factors.empty())
    out.add_tensor({"rope_freqs.weight", tensor_type::f32, 1,
                    static_cast<std::int64_t>(factors.size()), std::as_bytes(std::span(factors))});
  for (const auto& tensor : model.tensors())
    out.add_tensor(tensor);
  return out.bytes();
}

std::vector<std::byte> safetensors_bytes(const std::vector<tensor_view>& tensors) {
  auto header = nlohmann::ordered_json::object();
  header["__metadata__"] = {{"format", "pt"}};
  std::uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    auto shape = nlohmann::ordered_json::array();
    if (tensor.rows != 1)
      shape.push_back(tensor.rows);
    shape.push_back(tensor.columns);
    header[std::string(tensor.name)] = {{"dtype", safetensors_type(tensor.type)},
                                        {"shape", shape},
                                        {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  auto text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::vector<std::byte> out;
  put_text(out, text);
  for (const auto& tensor : tensors)
    out.insert(out.end(), tensor.bytes.begin(), tensor.bytes.end());
  return out;
}

std::string hf_config_json(const compute::model_config& config) {
  nlohmann::json out{{"model_type", config.architecture},
                     {"_name_or_path", config.name},
                     {"hidden_act", "silu"},
                     {"num_hidden_layers", config.layers},
                     {"hidden_size", config.hidden},
                     {"num_attention_heads", config.heads},
                     {"num_key_value_heads", config.kv_heads},
                     {"head_dim", config.head_dim},
                     {"intermediate_size", config.ffn},
                     {"vocab_size", config.vocab},
                     {"max_position_embeddings", config.context},
                     {"rms_norm_eps", config.norm_epsilon},
                     {"rope_theta", config.rope_theta},
                     {"tie_word_embeddings", config.tied_head}};
  if (config.scaling == compute::rope_scaling::linear)
    out["rope_scaling"] = {{"type", "linear"}, {"factor", config.rope_factor}};
  if (config.scaling == compute::rope_scaling::yarn)
    out["rope_scaling"] = {{"type", "yarn"},
                           {"factor", config.rope_factor},
                           {"original_max_position_embeddings", config.rope_original_context}};
  if (config.scaling == compute::rope_scaling::llama3)
    out["rope_scaling"] = {{"rope_type", "llama3"},
                           {"factor", config.rope_factor},
                           {"low_freq_factor", config.rope_low_frequency_factor},
                           {"high_freq_factor", config.rope_high_frequency_factor},
                           {"original_max_position_embeddings", config.rope_original_context}};
  return out.dump(1);
}

void write_hf_folder(const compute::model_file& model, const std::filesystem::path& folder,
                     int shards) {
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", hf_config_json(model.config()));
  std::vector<std::string> names;
  for (const auto& tensor : model.tensors())
    names.push_back(hf_name(tensor.name));
  std::map<int, std::vector<tensor_view>> parts;
  nlohmann::json index{{"metadata", {{"total_size", model.total_bytes()}}},
                       {"weight_map", nlohmann::json::object()}};
  const auto file_name = [&](int shard) {
    return shards == 1 ? std::string("model.safetensors")
                       : "model-" + std::to_string(shard) + ".safetensors";
  };
  for (std::size_t i = 0; i < names.size(); ++i) {
    const int shard = static_cast<int>(i) % shards;
    auto& tensor = parts[shard].emplace_back(model.tensors()[i]);
    tensor.name = names[i];
    index["weight_map"][names[i]] = file_name(shard);
  }
  for (const auto& [shard, tensors] : parts)
    write_file(folder / file_name(shard), safetensors_bytes(tensors));
  if (shards > 1)
    write_file(folder / "model.safetensors.index.json", index.dump());
}

void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!out.flush())
    throw std::runtime_error("cannot write " + path.string());
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text)));
}

temporary_folder::temporary_folder() {
  auto pattern = (std::filesystem::temp_directory_path() / "hexgen-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw std::runtime_error("cannot make a folder like " + pattern);
  path_ = pattern;
}

temporary_folder::~temporary_folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

} // namespace hexgen::tests
