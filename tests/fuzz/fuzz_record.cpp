// The fabric's framing: any bytes, in any pieces, before and after the hand-shake.
#include "transport/record.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

using namespace hexgen::transport;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2)
    return 0;
  record_reader reader;
  if ((data[0] & 1U) != 0)
    reader.allow_frames();
  const std::size_t step = 1U + data[1];
  data += 2;
  size -= 2;
  while (size != 0) {
    const auto into = reader.wanted();
    if (into.empty())
      std::abort(); // it would never go on
    const std::size_t n = std::min({into.size(), size, step});
    std::memcpy(into.data(), data, n);
    data += n;
    size -= n;
    switch (reader.advance(n)) {
    case record_reader::event::none:
      break;
    case record_reader::event::error:
      if (reader.error().empty())
        std::abort();
      return 0;
    case record_reader::event::message:
      if (reader.body().size() > link_message_bytes)
        std::abort();
      break;
    case record_reader::event::frame: {
      const received_frame f = reader.take_frame();
      if (f.head.size() > limits::head_bytes || f.payload_bytes > limits::payload_bytes)
        std::abort();
      break;
    }
    }
    if (reader.held_bytes() > 3 * limits::payload_bytes)
      std::abort();
  }
  return 0;
}
