// An API over a fake service.
#pragma once

#include "actors/openai/openai_api.hpp"
#include "tests/actors/openai/fake_service.hpp"
#include "tests/catch.hpp"

#include <nlohmann/json.hpp>

namespace hexgen::tests {

struct api_fixture {
  fake_service service;
  actors::serving_metrics metrics{"fake"};
  std::vector<std::string> log;
  actors::openai_api api{options(), service, metrics};

  actors::api_options options() {
    actors::api_options o;
    o.aliases = {"alias"};
    o.log = [this](const std::string& line) { log.push_back(line); };
    return o;
  }
  std::shared_ptr<recorded_sink> call(const std::string& method, const std::string& path,
                                      const std::string& body = {},
                                      transport::http_headers headers = {}) {
    auto sink = std::make_shared<recorded_sink>();
    api.handle({method, path, body, std::move(headers)}, sink);
    return sink;
  }
  std::shared_ptr<recorded_sink> post(const std::string& path, const nlohmann::json& body,
                                      transport::http_headers headers = {}) {
    return call("POST", path, body.dump(), std::move(headers));
  }
  /// Answers every request at once with `text` per choice.
  void answer_with(const std::string& text) {
    service.on_submit = [this, text](std::uint64_t ticket, const actors::generation_request& r) {
      for (int c = 0; c < r.choices; ++c) {
        service.say(ticket, text.substr(0, 1), 1, "", c);
        service.say(ticket, text.substr(1), static_cast<int>(text.size()), "stop", c);
      }
    };
  }
};

inline nlohmann::json json_of(const std::string& text) {
  return nlohmann::json::parse(text);
}

/// Checks the form of an error and returns its object.
inline nlohmann::json error_of(const recorded_sink& sink, int status) {
  INFO(sink.reply.body);
  CHECK(sink.reply.status == status);
  const auto error = json_of(sink.reply.body).at("error");
  CHECK(error.at("message").is_string());
  CHECK(error.at("type").is_string());
  CHECK((error.at("param").is_string() || error.at("param").is_null()));
  CHECK((error.at("code").is_string() || error.at("code").is_number_integer()));
  return error;
}

} // namespace hexgen::tests
