#include "actors/core/base64.hpp"
#include "tests/catch.hpp"

#include <utility>

using namespace hexgen::actors;

TEST_CASE("base64 both ways, with and without padding") {
  for (const auto& [bytes, text] : {std::pair<std::string, std::string>{"", ""}, // RFC 4648's own
                                    {"f", "Zg=="},
                                    {"fo", "Zm8="},
                                    {"foo", "Zm9v"},
                                    {"foob", "Zm9vYg=="},
                                    {"fooba", "Zm9vYmE="},
                                    {"foobar", "Zm9vYmFy"}}) {
    CHECK(to_base64(bytes) == text);
    CHECK(from_base64(text) == bytes);
    CHECK(from_base64(text.substr(0, text.find('='))) == bytes);
  }
  std::string all;
  for (int i = 0; i < 256; ++i)
    all += static_cast<char>(i);
  CHECK(from_base64(to_base64(all)) == all);
}

TEST_CASE("what is not base64 is nothing") {
  for (const char* text :
       {"Z", "Zm9vY", "Zg=", "Zg===", "Zm9v=", "=", "==", "Zm 9", "Zm9-", "Z=g=", "Zm9v\n"})
    CHECK_FALSE(from_base64(text));
  CHECK_FALSE(from_base64(std::string_view("Zm\0v", 4)));
}
