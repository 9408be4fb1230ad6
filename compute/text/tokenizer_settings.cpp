#include "compute/text/tokenizer_settings.hpp"

#include <nlohmann/json.hpp>

namespace hexgen::compute {

namespace {

using json = nlohmann::json;

json parse_object(const vocabulary& v, const char* name, const std::string& text) {
  if (text.empty())
    return json::object();
  auto value = json::parse(text, nullptr, false);
  if (!value.is_object())
    bad_tokenizer(v.file, name, "is not a JSON object");
  return value;
}

// "bos_token": "<s>" or {"content": "<s>", ...} or null.
void set_token(const json& config, const char* key,
               const std::unordered_map<std::string_view, token_id>& ids, token_id& id) {
  const auto at = config.find(key);
  if (at == config.end())
    return;
  std::string text;
  if (at->is_string())
    text = at->get<std::string>();
  else if (at->is_object() && at->contains("content") && (*at)["content"].is_string())
    text = (*at)["content"].get<std::string>();
  else
    return;
  if (const auto found = ids.find(text); found != ids.end())
    id = found->second;
}

std::string template_of(const json& config) {
  const auto at = config.find("chat_template");
  if (at == config.end())
    return {};
  if (at->is_string())
    return at->get<std::string>();
  // Several named templates: the one called "default".
  if (at->is_array())
    for (const auto& entry : *at)
      if (entry.is_object() && entry.value("name", json()) == "default" &&
          entry.contains("template") && entry["template"].is_string())
        return entry["template"].get<std::string>();
  return {};
}

} // namespace

void apply_settings(vocabulary& v, const tokenizer_settings& settings) {
  const auto config = parse_object(v, "tokenizer_config.json", settings.tokenizer_config);
  const auto generation = parse_object(v, "generation_config.json", settings.generation_config);
  const auto ids = piece_ids(v);
  set_token(config, "bos_token", ids, v.bos);
  set_token(config, "eos_token", ids, v.eos);
  set_token(config, "unk_token", ids, v.unknown);
  if (const auto at = config.find("add_bos_token"); at != config.end() && at->is_boolean())
    v.add_bos = at->get<bool>();
  v.chat_template = settings.chat_template.empty() ? template_of(config) : settings.chat_template;
  const auto add_end = [&](const json& id) {
    if (!id.is_number_integer() || id < 0 || id >= v.pieces.size())
      bad_tokenizer(v.file, "generation_config.json eos_token_id", "is no id of the vocabulary");
    v.end_ids.push_back(id.get<token_id>());
  };
  if (const auto at = generation.find("eos_token_id"); at != generation.end()) {
    if (at->is_array())
      for (const auto& id : *at)
        add_end(id);
    else if (!at->is_null())
      add_end(*at);
  }
}

} // namespace hexgen::compute
