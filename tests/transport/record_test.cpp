#include "tests/catch.hpp"
#include "transport/record.hpp"

#include <cstring>
#include <vector>

using namespace hexgen::transport;

namespace {

using event = record_reader::event;

/// Feeds `bytes` in pieces of at most `step`; stops at the first event.
event feed(record_reader& reader, std::string& bytes, std::size_t step) {
  while (!bytes.empty()) {
    const auto into = reader.wanted();
    REQUIRE_FALSE(into.empty());
    const std::size_t n = std::min({into.size(), bytes.size(), step});
    std::memcpy(into.data(), bytes.data(), n);
    bytes.erase(0, n);
    const event e = reader.advance(n);
    if (e != event::none)
      return e;
  }
  return event::none;
}

std::string record(const record_header& header, const std::string& rest = {}) {
  std::string out;
  append_header(out, header);
  return out + rest;
}

std::string refusal(std::string bytes, bool frames = true) {
  record_reader reader;
  if (frames)
    reader.allow_frames();
  event e = event::none;
  while (e != event::error && !bytes.empty())
    e = feed(reader, bytes, bytes.size());
  return e == event::error ? reader.error() : std::string();
}

} // namespace

TEST_CASE("record: a frame in chunks comes out whole, whatever the pieces", "[record]") {
  const std::size_t step = GENERATE(1, 3, 7, 1000);
  record_reader reader;
  reader.allow_frames();
  std::string bytes = record({record_kind::frame, traffic::data, 5, 4, 6, 2}, "headab");
  bytes += record({record_kind::more, traffic::data, 0, 0, 0, 4}, "cdef");
  REQUIRE(feed(reader, bytes, step) == event::frame);
  const received_frame f = reader.take_frame();
  CHECK(f.type == 5);
  CHECK(f.head == "head");
  CHECK(std::string(reinterpret_cast<const char*>(f.payload.get()), f.payload_bytes) == "abcdef");
  CHECK(bytes.empty());
  CHECK(reader.held_bytes() == 0);
}

TEST_CASE("record: control overtakes an open data frame", "[record]") {
  record_reader reader;
  reader.allow_frames();
  std::string bytes = record({record_kind::frame, traffic::data, 1, 0, 4, 2}, "ab");
  bytes += record({record_kind::frame, traffic::control, 2, 2, 0, 0}, "hi");
  append_record(bytes, record_kind::ping, "body");
  bytes += record({record_kind::more, traffic::data, 0, 0, 0, 2}, "cd");
  REQUIRE(feed(reader, bytes, 64) == event::frame);
  CHECK(reader.take_frame().head == "hi");
  CHECK(reader.held_bytes() == 4);
  REQUIRE(feed(reader, bytes, 64) == event::message);
  CHECK(reader.kind() == record_kind::ping);
  CHECK(reader.body() == "body");
  REQUIRE(feed(reader, bytes, 64) == event::frame);
  CHECK(reader.take_frame().payload_bytes == 4);
}

TEST_CASE("record: an empty frame and an empty message are complete with their header",
          "[record]") {
  record_reader reader;
  reader.allow_frames();
  std::string bytes = record({record_kind::frame, traffic::bulk, 9, 0, 0, 0});
  append_record(bytes, record_kind::ready, {});
  REQUIRE(feed(reader, bytes, 64) == event::frame);
  CHECK(reader.take_frame().type == 9);
  REQUIRE(feed(reader, bytes, 64) == event::message);
}

TEST_CASE("record: what breaks the rules is named before memory is taken", "[record]") {
  using k = record_kind;
  constexpr traffic d = traffic::data;
  std::string unknown = record({k::frame, d, 0, 0, 0, 0});
  unknown[0] = 99;
  CHECK(refusal(unknown) == "record kind 99 is unknown");
  std::string bad_class = record({k::frame, d, 0, 0, 0, 0});
  bad_class[1] = 3;
  CHECK(refusal(bad_class) == "traffic class 3 is unknown");
  std::string reserved = record({k::frame, d, 0, 0, 0, 0});
  reserved[3] = 1;
  CHECK_FALSE(refusal(reserved).empty());
  CHECK(refusal(record({k::frame, d, 0, 0, 0, 0}), false) ==
        "a frame before the hand-shake is done");
  CHECK_FALSE(refusal(record({k::frame, d, 0, 0xFFFFFFFF, 0, 0})).empty());
  CHECK_FALSE(refusal(record({k::frame, d, 0, 0, 0xFFFFFFFF, 1})).empty());
  CHECK_FALSE(refusal(record({k::frame, d, 0, 0, 10, 11})).empty());
  CHECK_FALSE(refusal(record({k::frame, d, 0, 0, 10, 0})).empty());
  CHECK_FALSE(refusal(record({k::frame, d, 0, 0, 1U << 25, 1U << 20})).empty());
  CHECK_FALSE(refusal(record({k::more, d, 0, 0, 0, 1})).empty());
  const std::string open = record({k::frame, d, 0, 0, 4, 1}, "a");
  CHECK(refusal(open + record({k::frame, d, 0, 0, 4, 1})) == "a frame inside another of its class");
  CHECK_FALSE(refusal(open + record({k::more, d, 0, 0, 0, 4})).empty());
  CHECK_FALSE(refusal(open + record({k::more, d, 0, 0, 0, 0})).empty());
  CHECK_FALSE(refusal(record({k::hello, d, 0, 9000, 0, 0}), false).empty());
  CHECK_FALSE(refusal(record({k::ping, d, 0, 0, 4, 4})).empty());
}
