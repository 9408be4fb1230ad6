#include "compute/text/stop_matcher.hpp"
#include "compute/text/unicode.hpp"
#include "compute/text/utf8_stream.hpp"
#include "tests/catch.hpp"

#include <random>

using namespace hexgen::compute;

TEST_CASE("ill-formed UTF-8 becomes U+FFFD as Unicode advises") {
  CHECK(well_formed_utf8("a\xF0\x9F\x98\x80z") == "a\xF0\x9F\x98\x80z");
  CHECK(well_formed_utf8("\xF0\x9F\x98") == "\xEF\xBF\xBD");         // one cut character
  CHECK(well_formed_utf8("\xC0\xAF") == "\xEF\xBF\xBD\xEF\xBF\xBD"); // overlong
  CHECK(well_formed_utf8("\xED\xA0\x80").size() == 9);               // surrogate
  CHECK(well_formed_utf8("\xF4\x90\x80\x80").size() == 12);          // past U+10FFFF
  CHECK(well_formed_utf8("\xE2\x82x") == "\xEF\xBF\xBDx");
}

TEST_CASE("a half character waits for the rest of it") {
  utf8_stream stream;
  CHECK(stream.push("a\xF0\x9F") == "a");
  CHECK(stream.push("\x98").empty());
  CHECK(stream.push("\x80z") == "\xF0\x9F\x98\x80z");
  CHECK(stream.push("\xE2\x82") == "");
  CHECK(stream.finish() == "\xEF\xBF\xBD");
  CHECK(stream.finish().empty());
  CHECK(stream.push("\x80") == "\xEF\xBF\xBD"); // can begin nothing
}

TEST_CASE("cut anywhere, a stream gives what the whole text gives") {
  const std::string text = "x\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xFF\xC3\xE2\x82y\xF0\x9F\x98";
  for (unsigned cuts = 0; cuts < 1U << (text.size() - 1); ++cuts) {
    utf8_stream stream;
    std::string out;
    std::string piece;
    for (std::size_t i = 0; i < text.size(); ++i) {
      piece += text[i];
      if ((cuts >> i & 1U) != 0) {
        out += stream.push(piece);
        piece.clear();
      }
    }
    out += stream.push(piece);
    out += stream.finish();
    if (out != well_formed_utf8(text))
      FAIL(cuts);
  }
}

TEST_CASE("a stop string and every beginning of one are held back") {
  stop_matcher stops({"</s>", "STOP"});
  CHECK(stops.push("hello <") == "hello ");
  CHECK(stops.push("/") == "");
  CHECK(stops.push("b> S") == "</b> ");
  CHECK(stops.push("TO") == "");
  CHECK_FALSE(stops.stopped());
  CHECK(stops.push("P more") == "");
  CHECK(stops.stopped());
  CHECK(stops.met() == "STOP");
  CHECK(stops.push("later").empty());
  CHECK(stops.finish().empty());
}

TEST_CASE("without a stop everything comes out in the end") {
  stop_matcher stops({"aab", ""});
  CHECK(stops.push("aaaa") == "aa");
  CHECK(stops.finish() == "aa");
  stop_matcher none({});
  CHECK(none.push("text") == "text");
}

TEST_CASE("random streams stop where a plain search says") {
  std::mt19937 random(7);
  const auto word = [&](std::size_t longest) {
    std::string w(1 + random() % longest, 'a');
    for (char& c : w)
      c = static_cast<char>('a' + random() % 2);
    return w;
  };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (unsigned i = 0; i < 1 + random() % 3; ++i)
      stops.push_back(word(5));
    const auto text = word(40);
    // The stop that is complete first; of those, the longest.
    std::size_t end = std::string::npos;
    std::size_t begin = text.size();
    for (const auto& s : stops)
      if (const auto at = text.find(s); at != std::string::npos) {
        if (at + s.size() < end || (at + s.size() == end && at < begin)) {
          end = at + s.size();
          begin = at;
        }
      }
    stop_matcher matcher(stops);
    std::string shown;
    for (std::size_t i = 0; i < text.size();) {
      const auto n = 1 + random() % 4;
      shown += matcher.push(std::string_view(text).substr(i, n));
      REQUIRE(text.compare(0, shown.size(), shown) == 0);
      REQUIRE(shown.size() <= begin);
      i += n;
    }
    CHECK(matcher.stopped() == (end != std::string::npos));
    shown += matcher.finish();
    CHECK(shown == text.substr(0, begin));
  }
}
