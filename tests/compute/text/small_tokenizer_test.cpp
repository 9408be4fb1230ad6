// Readers and encoders over vocabularies that are small enough to follow by hand.
#include "compute/model_file.hpp"
#include "compute/text/nfc.hpp"
#include "compute/text/pretokenizer.hpp"
#include "compute/text/tokenizer_readers.hpp"
#include "tests/catch.hpp"

#include <cstring>
#include <functional>

using namespace hexgen::compute;

namespace {

using ids_t = std::vector<token_id>;
const std::string mark = "\xE2\x96\x81";

void put_varint(std::string& out, std::uint64_t n) {
  for (; n >= 0x80; n >>= 7U)
    out += static_cast<char>(n | 0x80U);
  out += static_cast<char>(n);
}

void put_bytes(std::string& out, unsigned field, const std::string& bytes) {
  put_varint(out, field << 3U | 2U);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_number(std::string& out, unsigned field, std::uint64_t n) {
  put_varint(out, field << 3U);
  put_varint(out, n);
}

std::string piece(const std::string& text, float score, int type) {
  std::string p;
  put_bytes(p, 1, text);
  put_varint(p, 2U << 3U | 5U);
  char bits[4];
  std::memcpy(bits, &score, 4);
  p.append(bits, 4);
  put_number(p, 3, static_cast<std::uint64_t>(type));
  return p;
}

// 0 <unk>, 1 <s>, 2 </s>, 3.. bytes of U+00E9, 5 a, 6 b, 7 mark, 8 ab, 9 mark+a, 10 mark+ab
std::string small_model(const std::function<void(std::string&)>& change = {}) {
  std::string m;
  put_bytes(m, 1, piece("<unk>", 0, 2));
  put_bytes(m, 1, piece("<s>", 0, 3));
  put_bytes(m, 1, piece("</s>", 0, 3));
  put_bytes(m, 1, piece("<0xC3>", 0, 6));
  put_bytes(m, 1, piece("<0xA9>", 0, 6));
  put_bytes(m, 1, piece("a", -10, 1));
  put_bytes(m, 1, piece("b", -11, 1));
  put_bytes(m, 1, piece(mark, -12, 1));
  put_bytes(m, 1, piece("ab", -1, 1));
  put_bytes(m, 1, piece(mark + "a", -2, 1));
  put_bytes(m, 1, piece(mark + "ab", -3, 1));
  std::string trainer;
  put_number(trainer, 3, 2);
  put_bytes(m, 2, trainer);
  std::string normalizer;
  put_number(normalizer, 3, 1);
  put_number(normalizer, 4, 0);
  put_bytes(m, 3, normalizer);
  if (change)
    change(m);
  return m;
}

const char* const small_json = R"({
  "added_tokens": [{"id": 8, "content": "<end>", "special": true},
                   {"id": 9, "content": "<x>", "special": false, "lstrip": true, "rstrip": true}],
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
  "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<end>"}},
                     {"Sequence": {"id": "A"}}]},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4, "Ã": 5, "©": 6,
            "Ã©": 7}, "merges": ["a b", ["Ġ", "ab"], "Ã ©"]}
})";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

} // namespace

TEST_CASE("SentencePiece models merge by score and fall back to bytes") {
  const auto t = tokenizer_of_model("m", small_model(), {});
  CHECK(t->encode("ab", false, true) == ids_t{1, 10});
  CHECK(t->encode("ab", false, false) == ids_t{10});
  CHECK(t->encode("ab a", false, false) == ids_t{10, 9});
  CHECK(t->encode("b\xC3\xA9", false, false) == ids_t{7, 6, 3, 4});
  CHECK(t->encode("z", false, false) == ids_t{7, 0});   // no byte token for z
  CHECK(t->encode("zyz", false, false) == ids_t{7, 0}); // neighbours share one
  CHECK(t->encode("a</s>a", true, false) == ids_t{9, 2, 9});
  CHECK(t->encode("", false, true) == ids_t{1});
  CHECK(t->decode(ids_t{10, 9}, false) == "ab a");
  CHECK(t->decode(ids_t{1, 10, 2}, true) == "ab");
  CHECK(t->decode(ids_t{3, 4}, false) == "\xC3\xA9");
  CHECK(t->is_special(0));
  CHECK(t->end_ids().size() == 1);
}

TEST_CASE("damaged SentencePiece models are errors that name the file") {
  const auto whole = small_model();
  int refused = 0;
  for (std::size_t n = 0; n < whole.size(); ++n) {
    try {
      (void)tokenizer_of_model("m.model", whole.substr(0, n), {});
    } catch (const file_error& e) {
      REQUIRE(std::string(e.what()).rfind("m.model: ", 0) == 0);
      ++refused;
    }
  }
  CHECK(refused > 100);
  const auto with_trainer = [&](unsigned field, std::uint64_t value) {
    return small_model([&](std::string& m) {
      std::string trainer;
      put_number(trainer, field, value);
      put_bytes(m, 2, trainer);
    });
  };
  CHECK_THROWS_AS(tokenizer_of_model("m", with_trainer(3, 1), {}), file_error);   // unigram
  CHECK_THROWS_AS(tokenizer_of_model("m", with_trainer(41, 11), {}), file_error); // bos id
  CHECK_THROWS_AS(tokenizer_of_model("m", with_trainer(42, ~0ULL - 5), {}), file_error);
  CHECK(tokenizer_of_model("m", with_trainer(41, ~0ULL), {})->bos() == -1);
}

TEST_CASE("tokenizer.json: byte-level BPE") {
  const auto t = tokenizer_of_json("t", small_json, {});
  CHECK(t->encode("ab ab", false, false) == ids_t{3, 4});
  CHECK(t->encode("ab", false, true) == ids_t{8, 3});
  CHECK(t->encode("e\xCC\x81", false, false) == ids_t{7}); // composed first
  CHECK(t->encode("z", false, false).empty());             // no such byte
  CHECK(t->encode("a \xE3\x80\x80<x> \nb", false, false) == ids_t{0, 9, 1});
  CHECK(t->encode("<end>", false, false).empty());
  CHECK(t->encode("<end>", true, false) == ids_t{8});
  CHECK(t->decode(ids_t{3, 4, 7, 8}, true) == "ab ab\xC3\xA9");
}

TEST_CASE("tokenizer.json: what would change the ids is refused by name") {
  const std::vector<std::pair<std::string, std::string>> changes = {
      {R"("type": "BPE")", R"("type": "Unigram")"},
      {R"("type": "NFC")", R"("type": "Lowercase")"},
      {R"("type": "ByteLevel")", R"("type": "Whitespace")"},
      {R"("a b")", R"("a c")"},
      {R"("a b")", R"("ab")"},
      {R"("id": 8)", R"("id": 100000000)"},
      {R"("id": 8)", R"("id": -1)"},
      {R"("a": 0)", R"("a": "0")"},
      {R"("merges": [)", R"("merges": [1, )"},
      {R"({"type": "NFC"})", R"({"type": "Sequence", "normalizers": [{"type": "Sequence"}]})"},
      {R"("special": true)", R"("special": true, "single_word": true)"}};
  for (const auto& [from, to] : changes) {
    INFO(to);
    CHECK_THROWS_AS(tokenizer_of_json("t", replaced(small_json, from, to), {}), file_error);
  }
  const auto split = R"({"type": "Sequence", "pretokenizers": [{"type": "Split",
    "pattern": {"Regex": "(a"}, "behavior": "Isolated"}, {"type": "ByteLevel",
    "use_regex": false}]})";
  const auto text = replaced(
      small_json, R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})", split);
  CHECK_THROWS_AS(tokenizer_of_json("t", text, {}), file_error);
  for (const auto* junk : {"", "[]", "{", "{}", "\xFF"})
    CHECK_THROWS_AS(tokenizer_of_json("t", junk, {}), file_error);
}

TEST_CASE("settings beside a tokenizer name its special tokens") {
  tokenizer_settings settings;
  settings.tokenizer_config =
      R"({"bos_token": {"content": "<x>"}, "eos_token": "<end>", "add_bos_token": true,
          "chat_template": [{"name": "default", "template": "T"}]})";
  settings.generation_config = R"({"eos_token_id": [8, 3]})";
  const auto t = tokenizer_of_json("t", small_json, settings);
  CHECK(t->bos() == 9);
  CHECK(t->eos() == 8);
  CHECK(t->chat_template() == "T");
  CHECK(ids_t(t->end_ids().begin(), t->end_ids().end()) == ids_t{3, 8});
  settings.generation_config = R"({"eos_token_id": 10})";
  CHECK_THROWS_AS(tokenizer_of_json("t", small_json, settings), file_error);
}

TEST_CASE("words are cut by the families' rules") {
  const auto words = [](const char* pre, std::string_view text) {
    std::string joined;
    for (const auto w : pretokenizer(split_rules_of(pre)).split(text))
      joined += std::string(w) + "|";
    return joined;
  };
  CHECK(words("gpt-2", "I'll pay  1234 $5!") == "I|'ll| pay| | 1234| $|5|!|");
  CHECK(words("smollm", "a 12  b") == "a| |1|2| | b|");
  CHECK(words("llama-bpe", "a 12345\n\n x") == "a| |123|45|\n\n| x|");
  CHECK(words("qwen2", "I'LL 123") == "I|'LL| |1|2|3|");
  CHECK_THROWS_AS(split_rules_of("no-such-rule"), std::invalid_argument);
}

TEST_CASE("normal form C") {
  CHECK(nfc("abc \xC3\xA9") == "abc \xC3\xA9");
  CHECK(nfc("e\xCC\x81") == "\xC3\xA9");
  CHECK(nfc("a\xCC\x81\xCC\xA3") == "\xE1\xBA\xA1\xCC\x81");            // marks sorted
  CHECK(nfc("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB") == "\xED\x95\x9C"); // Hangul
  CHECK(nfc("\xE2\x84\xAB") == "\xC3\x85");                             // Angstrom sign
  CHECK(nfc("\xE0\xA4\x95\xE0\xA4\xBC") == "\xE0\xA4\x95\xE0\xA4\xBC"); // excluded
}
