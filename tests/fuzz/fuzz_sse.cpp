// Any bytes as an event stream, cut anywhere: the same events.
#include "tools/bench_serve/sse_reader.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using hexgen::tools::sse_reader;
  if (size == 0)
    return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t piece = 1 + data[0];
  sse_reader whole(4096), cut(4096);
  const auto expected = whole.feed(bytes);
  std::vector<std::string> events;
  for (std::size_t at = 0; at < bytes.size(); at += piece)
    for (auto& one : cut.feed(bytes.substr(at, piece)))
      events.push_back(std::move(one));
  if (events != expected || cut.broken() != whole.broken())
    std::abort();
  return 0;
}
