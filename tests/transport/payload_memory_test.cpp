#include "tests/catch.hpp"
#include "transport/payload_memory.hpp"

#include <cstdint>

using namespace hexgen::transport;

TEST_CASE("payload memory: large pieces are used again, and freed when nobody does", "[payload]") {
  trim_payload_memory();
  trim_payload_memory();
  const std::size_t before = kept_payload_bytes();
  const void* place = nullptr;
  {
    const auto piece = take_payload_memory(300'000);
    place = piece.get();
    CHECK(reinterpret_cast<std::uintptr_t>(place) % 64 == 0);
  }
  CHECK(kept_payload_bytes() == before + (512U << 10));
  CHECK(take_payload_memory(400'000).get() == place);
  trim_payload_memory(); // it was used since the last one
  trim_payload_memory();
  CHECK(kept_payload_bytes() == before);
  CHECK(take_payload_memory(0) != nullptr);
}
