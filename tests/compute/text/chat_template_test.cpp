// Expected texts: the families' own Jinja templates, rendered once with jinja2.
#include "compute/chat_template.hpp"
#include "tests/catch.hpp"

#include <nlohmann/json.hpp>

#include <fstream>
#include <stdexcept>

using namespace hexgen::compute;

namespace {

nlohmann::json golden() {
  std::ifstream in(HEXGEN_SOURCE_DIR "/tests/golden/chat_templates.json");
  return nlohmann::json::parse(in);
}

std::vector<chat_message> messages_of(const nlohmann::json& list) {
  std::vector<chat_message> messages;
  for (const auto& m : list)
    messages.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
  return messages;
}

} // namespace

TEST_CASE("templates are recognised and render as their Jinja text does") {
  int rendered = 0;
  for (const auto& family : golden()) {
    const auto chat = find_chat_template(family["jinja"].get<std::string>(), "", "<s>", "</s>");
    INFO(family["name"]);
    CHECK(chat->name() == family["recognised"].get<std::string>());
    for (const auto& c : family["cases"]) {
      INFO(c["messages"].dump());
      const auto messages = messages_of(c["messages"]);
      const bool prompt = c["add_generation_prompt"].get<bool>();
      if (c["text"].is_null())
        CHECK_THROWS_AS(chat->render(messages, prompt), std::invalid_argument);
      else
        CHECK(chat->render(messages, prompt) == c["text"].get<std::string>());
      ++rendered;
    }
  }
  CHECK(rendered >= 60);
}

TEST_CASE("a name wins over the text, and unknown ones are errors that name the known") {
  CHECK(find_chat_template("<|im_start|>", "llama3", "", "")->name() == "llama3");
  for (const auto* name : {"smollm2", "chatml", "qwen2", "qwen3", "llama2", "llama3", "mistral"})
    CHECK(find_chat_template("", name, "<s>", "</s>")->name() == name);
  for (const auto& [jinja, name] : std::vector<std::pair<const char*, const char*>>{
           {"", ""}, {"{{ messages }}", ""}, {"<|im_start|>", "alpaca"}}) {
    try {
      (void)find_chat_template(jinja, name, "", "");
      FAIL("no error");
    } catch (const std::invalid_argument& e) {
      CHECK(std::string(e.what()).find("smollm2") != std::string::npos);
    }
  }
}

TEST_CASE("roles that no template knows are refused") {
  for (const auto* name : {"chatml", "qwen3", "llama2", "llama3", "mistral"}) {
    const auto chat = find_chat_template("", name, "<s>", "</s>");
    CHECK_THROWS_AS(chat->render({{"user<|im_end|>", "x"}}, true), std::invalid_argument);
    CHECK_THROWS_AS(chat->render({}, true), std::invalid_argument);
  }
}
