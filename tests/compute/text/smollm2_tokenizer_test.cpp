// Against what the reference implementation made of the golden prompts (tests/golden).
#include "compute/chat_template.hpp"
#include "compute/tokenizer.hpp"
#include "tests/catch.hpp"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace hexgen::compute;

namespace {

std::filesystem::path model_path() {
  if (const char* path = std::getenv("HEXGEN_MODEL"))
    return path;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const auto base =
      cache ? std::filesystem::path(cache) : std::filesystem::path(home ? home : "/") / ".cache";
  return base / "hexgen/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

std::shared_ptr<const tokenizer> smollm2() {
  static const auto tokens = [] {
    const auto path = model_path();
    if (!std::filesystem::exists(path))
      throw std::runtime_error(path.string() + " is missing; tools/fetch_model.sh gets it");
    return open_tokenizer(path);
  }();
  return tokens;
}

nlohmann::json golden() {
  std::ifstream in(HEXGEN_SOURCE_DIR "/tests/golden/smollm2.json");
  return nlohmann::json::parse(in);
}

} // namespace

TEST_CASE("the golden prompts have the golden ids and come back from them") {
  const auto tokens = smollm2();
  const auto file = golden();
  REQUIRE(file["cases"].size() == 16);
  for (const auto& c : file["cases"]) {
    INFO(c["id"]);
    const auto prompt = c["prompt"].get<std::string>();
    const auto ids = tokens->encode(prompt, true, true);
    CHECK(ids == c["ids"].get<std::vector<token_id>>());
    CHECK(tokens->decode(ids, false) == prompt);
  }
}

TEST_CASE("the golden answers decode to the golden texts") {
  const auto tokens = smollm2();
  const auto file = golden();
  for (const auto& c : file["cases"]) {
    INFO(c["id"]);
    const auto ids = c["greedy_ids"].get<std::vector<token_id>>();
    CHECK(tokens->decode(ids, false) == c["greedy_text"].get<std::string>());
  }
}

TEST_CASE("the golden chats render to the golden prompts") {
  const auto tokens = smollm2();
  const auto chat =
      find_chat_template(tokens->chat_template(), "", tokens->piece(tokens->bos(), false),
                         tokens->piece(tokens->eos(), false));
  CHECK(chat->name() == "smollm2");
  int chats = 0;
  const auto file = golden();
  for (const auto& c : file["cases"]) {
    if (c["messages"].is_null())
      continue;
    ++chats;
    INFO(c["id"]);
    std::vector<chat_message> messages;
    for (const auto& m : c["messages"])
      messages.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
    const auto prompt = chat->render(messages, true);
    CHECK(prompt == c["prompt"].get<std::string>());
    CHECK(tokens->encode(prompt, true, false) == c["ids"].get<std::vector<token_id>>());
  }
  CHECK(chats == 3);
}

TEST_CASE("special ids and end ids are those of the model") {
  const auto tokens = smollm2();
  CHECK(tokens->vocab() == 49152);
  CHECK(tokens->bos() == 1);
  CHECK(tokens->eos() == 2);
  const std::vector<token_id> ends(tokens->end_ids().begin(), tokens->end_ids().end());
  CHECK(ends == std::vector<token_id>{0, 2});
  CHECK(tokens->is_special(1));
  CHECK_FALSE(tokens->is_special(504));
  CHECK(tokens->piece(2, true).empty());
  CHECK(tokens->piece(2, false) == "<|im_end|>");
  CHECK(tokens->piece(-1, false).empty());
  CHECK(tokens->piece(49152, false).empty());
  CHECK(tokens->encode("<|im_end|>", true, false) == std::vector<token_id>{2});
  CHECK(tokens->encode("<|im_end|>", false, false).size() > 1);
}

TEST_CASE("hard texts have the ids that the reference tokenizer gave") {
  std::ifstream in(HEXGEN_SOURCE_DIR "/tests/golden/smollm2_hard_texts.json");
  const auto cases = nlohmann::json::parse(in);
  REQUIRE(cases.size() >= 50);
  const auto tokens = smollm2();
  for (const auto& c : cases) {
    INFO(c["text"]);
    CHECK(tokens->encode(c["text"].get<std::string>(), true, false) ==
          c["ids"].get<std::vector<token_id>>());
  }
}

TEST_CASE("long texts take time in proportion to their length") {
  const auto tokens = smollm2();
  // A word of 200,000 letters: a quadratic merge loop would not come back.
  CHECK(tokens->encode(std::string(200'000, 'a'), false, false).size() > 1000);
  CHECK(tokens->encode(std::string(200'000, ' ') + "x", false, false).size() > 1000);
}
