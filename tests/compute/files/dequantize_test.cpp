#include "compute/files/half.hpp"
#include "compute/files/mapped_file.hpp"
#include "compute/files/quantize.hpp"
#include "compute/model_file.hpp"
#include "tests/catch.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

using namespace hexgen::compute;

namespace {

constexpr tensor_type all_types[] = {tensor_type::f32,  tensor_type::f16,  tensor_type::bf16,
                                     tensor_type::q8_0, tensor_type::q4_0, tensor_type::q4_1,
                                     tensor_type::q5_0, tensor_type::q5_1, tensor_type::iq4_nl,
                                     tensor_type::q4_k, tensor_type::q5_k, tensor_type::q6_k};

tensor_type type_named(const std::string& name) {
  for (const auto type : all_types)
    if (to_string(type) == name)
      return type;
  FAIL("no tensor type is called " << name);
  return tensor_type::f32;
}

/// Reads golden/dequant.bin; its layout is told in golden/make_dequant.py.
class golden_reader {
public:
  explicit golden_reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::uint32_t number() {
    std::uint32_t value = 0;
    std::memcpy(&value, take(4).data(), 4);
    return value;
  }
  std::span<const std::byte> take(std::size_t count) {
    REQUIRE(count <= bytes_.size());
    const auto out = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return out;
  }

private:
  std::span<const std::byte> bytes_;
};

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

} // namespace

TEST_CASE("dequantised values equal those of the gguf package in every bit") {
  const auto map = mapped_file::open(HEXGEN_SOURCE_DIR "/tests/golden/dequant.bin");
  golden_reader golden(map->bytes());
  REQUIRE(text_of(golden.take(4)) == "HXDQ");
  const auto count = golden.number();
  std::set<std::string> seen;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto name = text_of(golden.take(golden.number()));
    const auto values = golden.number();
    const auto size = golden.number();
    const auto data = golden.take(size);
    const auto expected = golden.take(values * sizeof(float));
    const auto type = type_named(name);
    REQUIRE(row_bytes(type, values) == size);
    std::vector<float> have(values);
    dequantize_row(type, data.data(), values, have.data());
    std::size_t wrong = 0;
    for (std::size_t v = 0; v < values; ++v)
      wrong += std::memcmp(&have[v], expected.data() + v * sizeof(float), sizeof(float)) != 0;
    INFO(name);
    CHECK(wrong == 0);
    seen.insert(name);
  }
  CHECK(seen.size() == std::size(all_types));
}

TEST_CASE("every half converts to float and back") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = half_to_float(half);
    if (std::isnan(value)) {
      REQUIRE((float_to_half(value) & 0x7fff) > 0x7c00);
    } else if (float_to_half(value) != half) {
      FAIL("half " << bits);
    }
  }
  CHECK(half_to_float(0x3c00) == 1.0F);
  CHECK(half_to_float(0x0001) == 0x1p-24F);
  CHECK(half_to_float(0x7bff) == 65504.0F);
}

TEST_CASE("floats round to the nearest half, ties to even") {
  CHECK(float_to_half(65519.0F) == 0x7bff);
  CHECK(float_to_half(65520.0F) == 0x7c00);
  CHECK(float_to_half(1.0F + 0x1p-11F) == 0x3c00);     // a tie
  CHECK(float_to_half(1.0F + 3 * 0x1p-11F) == 0x3c02); // a tie, the other way
  CHECK(float_to_half(1.0F + 0x1p-11F + 0x1p-20F) == 0x3c01);
  CHECK(float_to_half(0x1p-25F) == 0x0000); // a tie between 0 and 2^-24
  CHECK(float_to_half(3 * 0x1p-25F) == 0x0002);
  CHECK(float_to_half(-0x1p-14F) == 0x8400);
  CHECK(float_to_half(0x1.ffcp-15F + 0x1p-25F) == 0x0400); // a subnormal rounds up to normal
  CHECK(float_to_bfloat(1.0F + 0x1p-8F) == 0x3f80);
  CHECK(float_to_bfloat(1.0F + 3 * 0x1p-8F) == 0x3f82);
  CHECK(bfloat_to_float(0x3f80) == 1.0F);
}

TEST_CASE("what is quantised comes back close") {
  std::vector<float> row(512);
  std::uint32_t state = 7;
  for (auto& value : row) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31F;
  }
  row[40] = 0;
  const auto error_of = [&](tensor_type type) {
    std::vector<std::byte> bytes(row_bytes(type, 512));
    quantize_row(type, row.data(), 512, bytes.data());
    std::vector<float> back(512);
    dequantize_row(type, bytes.data(), 512, back.data());
    double squares = 0;
    for (std::size_t i = 0; i < row.size(); ++i)
      squares += std::pow(static_cast<double>(back[i]) - row[i], 2);
    return std::sqrt(squares / 512);
  };
  // Uniform values in (-1, 1): a step of 2/(2^bits - 1) leaves a deviation of step/sqrt(12).
  CHECK(error_of(tensor_type::f32) == 0);
  CHECK(error_of(tensor_type::f16) < 2e-4);
  CHECK(error_of(tensor_type::bf16) < 2e-3);
  CHECK(error_of(tensor_type::q8_0) < 0.003);
  CHECK(error_of(tensor_type::q6_k) < 0.012);
  CHECK(error_of(tensor_type::q5_k) < 0.022);
  CHECK(error_of(tensor_type::q5_1) < 0.020);
  CHECK(error_of(tensor_type::q5_0) < 0.022);
  CHECK(error_of(tensor_type::q4_k) < 0.045);
  CHECK(error_of(tensor_type::q4_1) < 0.042);
  CHECK(error_of(tensor_type::q4_0) < 0.046);
  CHECK(error_of(tensor_type::iq4_nl) < 0.060);
}

TEST_CASE("a row that is not whole blocks is refused") {
  float out[64] = {};
  std::byte in[64] = {};
  CHECK_THROWS_AS(row_bytes(tensor_type::q4_0, 33), std::invalid_argument);
  CHECK_THROWS_AS(row_bytes(tensor_type::f32, -1), std::invalid_argument);
  CHECK_THROWS_AS(dequantize_row(tensor_type::q4_k, in, 32, out), std::invalid_argument);
}
