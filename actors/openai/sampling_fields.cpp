#include "actors/openai/sampling_fields.hpp"

#include "actors/openai/api_error.hpp"
#include "actors/openai/bounds.hpp"
#include "actors/openai/json_fields.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace hexgen::actors {

using nlohmann::json;

namespace {

void read_sampling(const json& body, compute::sampling_params& params) {
  const auto number = [&](const char* name, float& into) {
    if (const auto value = number_field(body, name))
      into = static_cast<float>(*value);
  };
  number("temperature", params.temperature);
  number("top_p", params.top_p);
  number("min_p", params.min_p);
  number("repetition_penalty", params.repetition_penalty);
  number("presence_penalty", params.presence_penalty);
  number("frequency_penalty", params.frequency_penalty);
  if (params.top_p == 0.0F) { // keeps nothing: the likeliest token is what remains
    params.temperature = 0.0F;
    params.top_p = 1.0F;
  }
  params.top_k = std::max(0, integer_field(body, "top_k").value_or(0));
  params.min_tokens = integer_field(body, "min_tokens").value_or(0);
  params.ignore_eos = bool_field(body, "ignore_eos").value_or(false);
}

void read_seed(const json& body, std::uint64_t otherwise, compute::sampling_params& params) {
  params.seed = otherwise;
  const auto* seed = field(body, "seed");
  if (seed == nullptr)
    return;
  if (!seed->is_number_integer())
    throw bad_parameter("seed", "seed must be an integer of 64 bits");
  params.seed = seed->is_number_unsigned() ? seed->get<std::uint64_t>()
                                           : static_cast<std::uint64_t>(seed->get<std::int64_t>());
}

void read_stops(const json& body, int vocab, generation_request& generation) {
  const auto add = [&](const json& one) {
    if (!one.is_string())
      throw bad_parameter("stop", "stop must be a string or a list of strings");
    auto text = one.get<std::string>();
    if (text.empty() || text.size() > bounds::stop_bytes)
      throw bad_parameter("stop", "a stop string must have 1 to " +
                                      std::to_string(bounds::stop_bytes) + " bytes");
    generation.stop.push_back(std::move(text));
  };
  if (const auto* stop = field(body, "stop")) {
    if (!stop->is_array()) {
      add(*stop);
    } else {
      if (stop->size() > bounds::stop_strings)
        throw bad_parameter("stop", "stop must hold at most " +
                                        std::to_string(bounds::stop_strings) + " strings");
      for (const auto& one : *stop)
        add(one);
    }
  }
  if (const auto* ids = field(body, "stop_token_ids")) {
    if (!ids->is_array() || ids->size() > bounds::stop_ids)
      throw bad_parameter("stop_token_ids", "stop_token_ids must be a list of at most " +
                                                std::to_string(bounds::stop_ids) + " token ids");
    for (const auto& id : *ids)
      generation.params.stop_ids.push_back(token_value(id, vocab, "stop_token_ids"));
  }
}

void read_bias(const json& body, int vocab, compute::sampling_params& params) {
  const auto* bias = field(body, "logit_bias");
  if (bias == nullptr)
    return;
  if (!bias->is_object() || bias->size() > bounds::biases)
    throw bad_parameter("logit_bias", "logit_bias must be an object of at most " +
                                          std::to_string(bounds::biases) + " token ids");
  for (const auto& [key, value] : bias->items()) {
    int id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc{} || end != key.data() + key.size() || id < 0 || id >= vocab)
      throw bad_parameter("logit_bias", "logit_bias: a token id must be an integer between 0 and " +
                                            std::to_string(vocab - 1));
    if (!value.is_number() || !(std::abs(value.get<double>()) <= bounds::bias))
      throw bad_parameter("logit_bias", "logit_bias: a bias must be a number between -100 and 100");
    params.logit_bias.emplace_back(id, static_cast<float>(value.get<double>()));
  }
}

void read_streaming(const json& body, completion_request& request) {
  request.stream = bool_field(body, "stream").value_or(false);
  const auto* options = field(body, "stream_options");
  if (options == nullptr)
    return;
  if (!options->is_object())
    throw bad_parameter("stream_options", "stream_options must be an object");
  if (!request.stream)
    throw bad_parameter("stream_options", "stream_options goes with stream: true only");
  request.include_usage = bool_field(*options, "include_usage").value_or(false);
  request.continuous_usage = bool_field(*options, "continuous_usage_stats").value_or(false);
}

constexpr const char* shared_names[] = {"model",
                                        "temperature",
                                        "top_p",
                                        "top_k",
                                        "min_p",
                                        "repetition_penalty",
                                        "presence_penalty",
                                        "frequency_penalty",
                                        "n",
                                        "max_tokens",
                                        "min_tokens",
                                        "ignore_eos",
                                        "seed",
                                        "stop",
                                        "stop_token_ids",
                                        "skip_special_tokens",
                                        "logit_bias",
                                        "response_format",
                                        "stream",
                                        "stream_options",
                                        "logprobs",
                                        "priority",
                                        "user",
                                        "add_special_tokens",
                                        "return_token_ids"};
constexpr const char* chat_names[] = {"messages",
                                      "max_completion_tokens",
                                      "top_logprobs",
                                      "add_generation_prompt",
                                      "continue_final_message",
                                      "chat_template_kwargs",
                                      "tools",
                                      "tool_choice",
                                      "functions"};
constexpr const char* completion_names[] = {"prompt", "echo", "best_of", "suffix"};

} // namespace

void read_shared_fields(const json& body, const served_model& model, std::uint64_t random_seed,
                        completion_request& request, generation_request& generation) {
  const int vocab = model.tokens->vocab();
  read_streaming(body, request);
  read_sampling(body, generation.params);
  read_seed(body, random_seed, generation.params);
  read_stops(body, vocab, generation);
  read_bias(body, vocab, generation.params);
  generation.choices = integer_field(body, "n").value_or(1);
  generation.priority = integer_field(body, "priority").value_or(0);
  generation.skip_special_tokens = bool_field(body, "skip_special_tokens").value_or(true);
  request.token_ids = bool_field(body, "return_token_ids").value_or(false);
  (void)string_field(body, "user");
  request.unknown = unknown_fields(body, request.chat);
}

void fit_into_window(generation_request& generation, const served_model& model,
                     std::optional<int> asked, const char* asked_field,
                     std::optional<int> otherwise, const char* prompt_field) {
  const auto prompt = static_cast<std::int64_t>(generation.prompt.size());
  const std::int64_t room = model.context - prompt;
  const auto too_long = [&](const char* name, const std::string& what) {
    return api_error(400, "invalid_request_error",
                     "this model's window is " + std::to_string(model.context) +
                         " tokens; the prompt has " + std::to_string(prompt) + what,
                     name, "context_length_exceeded");
  };
  if (room < 1)
    throw too_long(prompt_field, ", which leaves no room for an answer");
  if (asked && *asked > room)
    throw too_long(asked_field,
                   " and " + std::to_string(*asked) + " more were asked for (" + asked_field + ")");
  auto& params = generation.params;
  params.max_tokens =
      asked ? *asked
            : static_cast<int>(std::min<std::int64_t>(room, otherwise.value_or(model.context)));
  if (params.min_tokens > params.max_tokens)
    throw bad_parameter("min_tokens", "min_tokens must not be more than max_tokens (" +
                                          std::to_string(params.max_tokens) + ")");
}

void check_sampler_takes(const generation_request& generation, const served_model& model) {
  try {
    (void)compute::sequence_sampler(generation.params, {}, {}, model.tokens);
  } catch (const std::invalid_argument& e) {
    throw api_error(400, "invalid_request_error", e.what());
  }
}

std::vector<std::string> unknown_fields(const json& body, bool chat) {
  std::vector<std::string> unknown;
  const auto in = [](const auto& names, const std::string& key) {
    return std::find(std::begin(names), std::end(names), key) != std::end(names);
  };
  for (const auto& [key, value] : body.items())
    if (!in(shared_names, key) && !(chat ? in(chat_names, key) : in(completion_names, key)))
      unknown.push_back(key);
  return unknown;
}

} // namespace hexgen::actors
