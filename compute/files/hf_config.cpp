#include "compute/files/hf_config.hpp"

#include "compute/files/json_file.hpp"
#include "compute/files/stored_model.hpp"

#include <algorithm>

namespace hexgen::compute {

namespace {

constexpr std::int64_t int_limit = std::numeric_limits<std::int32_t>::max();

int positive(const json_fields& fields, const char* name) {
  const auto value = fields.integer(name, 1, int_limit);
  if (!value)
    fields.fail(name, "missing");
  return static_cast<int>(*value);
}

int positive_or(const json_fields& fields, const char* name, int otherwise) {
  return static_cast<int>(fields.integer(name, 1, int_limit).value_or(otherwise));
}

void want(const json_fields& fields, const char* name, double value) {
  if (fields.number(name).value_or(value) != value)
    fields.fail(name, "values other than " + std::to_string(value) + " are not supported");
}

void read_scaling(const nlohmann::json& object, const std::string& file, const char* member,
                  model_config& config) {
  if (!object.is_object())
    throw file_error(file + ": " + member + ": want an object");
  const json_fields fields(object, file, std::string(member) + ".");
  // Newer folders keep theta beside the scaling.
  config.rope_theta = fields.number("rope_theta").value_or(config.rope_theta);
  auto type = fields.string("rope_type");
  if (!type)
    type = fields.string("type");
  if (!type || *type == "default")
    return;
  const auto factor = fields.number("factor");
  if (!factor)
    fields.fail("factor", "missing");
  config.rope_factor = *factor;
  if (*type == "linear") {
    config.scaling = rope_scaling::linear;
  } else if (*type == "llama3") {
    config.scaling = rope_scaling::llama3;
    config.rope_low_frequency_factor = fields.number("low_freq_factor").value_or(1.0);
    config.rope_high_frequency_factor = fields.number("high_freq_factor").value_or(4.0);
    config.rope_original_context = positive(fields, "original_max_position_embeddings");
  } else if (*type == "yarn") {
    config.scaling = rope_scaling::yarn;
    config.rope_original_context =
        positive_or(fields, "original_max_position_embeddings", config.context);
    want(fields, "beta_fast", 32);
    want(fields, "beta_slow", 1);
    for (const char* name : {"attention_factor", "mscale", "mscale_all_dim"})
      if (fields.find(name) != nullptr)
        fields.fail(name, "not supported");
    if (!fields.boolean("truncate").value_or(true))
      fields.fail("truncate", "false is not supported");
  } else {
    fields.fail("rope_type", in_quotes(*type) + " is not supported");
  }
}

/// Refuses what would silently give other results.
void refuse_unsupported(const json_fields& fields) {
  if (fields.find("quantization_config") != nullptr)
    fields.fail("quantization_config", "quantised folders are not supported; GGUF files are");
  const auto activation = fields.string("hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish")
    fields.fail("hidden_act", in_quotes(activation) + " is not supported");
  want(fields, "partial_rotary_factor", 1);
  if (fields.boolean("mlp_bias").value_or(false))
    fields.fail("mlp_bias", "not supported");
  if (fields.boolean("attention_bias").value_or(false))
    fields.fail("attention_bias", "not supported");
}

} // namespace

model_config parse_hf_config(std::string_view text, const std::string& file) {
  const auto object = parse_json_object(text, file);
  const json_fields fields(object, file);
  model_config config;
  config.architecture = fields.string("model_type").value_or("");
  if (config.architecture != "llama" && config.architecture != "mistral" &&
      config.architecture != "qwen2" && config.architecture != "qwen3")
    fields.fail("model_type",
                in_quotes(config.architecture) + " is none of llama, mistral, qwen2, qwen3");
  refuse_unsupported(fields);
  config.name = fields.string("_name_or_path").value_or("");
  config.layers = positive(fields, "num_hidden_layers");
  config.hidden = positive(fields, "hidden_size");
  config.heads = positive(fields, "num_attention_heads");
  config.kv_heads = positive_or(fields, "num_key_value_heads", config.heads);
  config.head_dim = positive_or(
      fields, "head_dim", config.architecture == "qwen3" ? 128 : config.hidden / config.heads);
  config.ffn = positive(fields, "intermediate_size");
  config.vocab = positive(fields, "vocab_size");
  config.context = positive(fields, "max_position_embeddings");
  config.norm_epsilon = static_cast<float>(fields.number("rms_norm_eps").value_or(1e-6));
  config.tied_head = fields.boolean("tie_word_embeddings").value_or(false);
  config.qkv_bias = config.architecture == "qwen2";
  config.qk_norm = config.architecture == "qwen3";
  config.rope_theta = fields.number("rope_theta").value_or(10000.0);
  for (const char* member : {"rope_scaling", "rope_parameters"})
    if (const auto* scaling = fields.find(member))
      read_scaling(*scaling, file, member, config);
  // Within the window a sliding attention sees what a full one sees.
  const bool slides =
      config.architecture == "mistral" || fields.boolean("use_sliding_window").value_or(false);
  if (slides)
    config.context =
        std::min(config.context, positive_or(fields, "sliding_window", config.context));
  check_config(config, file);
  return config;
}

} // namespace hexgen::compute
