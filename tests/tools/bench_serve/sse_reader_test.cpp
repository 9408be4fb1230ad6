#include "tests/catch.hpp"
#include "tools/bench_serve/sse_reader.hpp"

using hexgen::tools::sse_reader;
using strings = std::vector<std::string>;

TEST_CASE("server-sent events are found wherever the bytes are cut") {
  const std::string bytes =
      ": ping\n\ndata: {\"a\":1}\n\nevent: x\r\ndata:two\r\ndata:  lines\r\n\r\n"
      "\n\ndata: [DONE]\n\ndata: unfinished";
  const strings expected = {"{\"a\":1}", "two\n lines", "[DONE]"};
  for (std::size_t piece = 1; piece <= bytes.size(); ++piece) {
    sse_reader reader;
    strings events;
    for (std::size_t at = 0; at < bytes.size(); at += piece)
      for (auto& one : reader.feed(std::string_view(bytes).substr(at, piece)))
        events.push_back(one);
    CHECK(events == expected);
    CHECK_FALSE(reader.broken());
  }
}

TEST_CASE("a server-sent event without an end is bounded") {
  sse_reader reader(1000);
  CHECK(reader.feed("data: " + std::string(2000, 'x') + "\n\n").empty());
  CHECK(reader.broken());
}
