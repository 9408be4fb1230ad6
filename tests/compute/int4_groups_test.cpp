#include "compute/files/quantize.hpp"
#include "compute/int4_groups.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <random>
#include <set>
#include <vector>

using namespace hexgen::compute;

namespace {

constexpr int all_columns = 1024;

std::vector<float> random_row() {
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0.01F, 0.05F);
  std::vector<float> row(all_columns);
  for (auto& v : row)
    v = normal(random);
  return row;
}

struct packed_row {
  packed_row(tensor_type type, const std::vector<std::byte>& stored, int column, int columns)
      : codes(static_cast<std::size_t>(columns / 2), 0xee),
        scales(static_cast<std::size_t>(columns / int4_group * 2)),
        values(static_cast<std::size_t>(columns)) {
    pack_int4(type, stored.data(), all_columns, column, columns, codes.data(), scales.data());
    unpack_int4(codes.data(), scales.data(), columns, values.data());
  }
  std::vector<std::uint8_t> codes;
  std::vector<std::uint16_t> scales;
  std::vector<float> values;
};

} // namespace

TEST_CASE("4-bit blocks of a file are kept as they are", "[int4]") {
  const auto row = random_row();
  for (const auto type : {tensor_type::q4_0, tensor_type::q4_1, tensor_type::q4_k}) {
    CAPTURE(to_string(type));
    std::vector<std::byte> stored(row_bytes(type, all_columns));
    quantize_row(type, row.data(), all_columns, stored.data());
    std::vector<float> expected(all_columns);
    dequantize_row(type, stored.data(), all_columns, expected.data());
    for (const int column : {0, 256, 288}) {
      const packed_row packed(type, stored, column, 512);
      float worst = 0;
      float largest = 0;
      for (std::size_t i = 0; i < packed.values.size(); ++i) {
        const float wanted = expected[static_cast<std::size_t>(column) + i];
        worst = std::max(worst, std::fabs(packed.values[i] - wanted));
        largest = std::max(largest, std::fabs(wanted));
      }
      // A scale and a minimum of Q4_K are each rounded once.
      CHECK(worst <= (type == tensor_type::q4_k ? largest * 0x1p-9F : 0.0F));
      CHECK(largest > 0.05F);
    }
  }
}

TEST_CASE("other weights are rounded to sixteen steps of their group's range", "[int4]") {
  const auto row = random_row();
  for (const auto type : {tensor_type::f32, tensor_type::bf16, tensor_type::q6_k}) {
    CAPTURE(to_string(type));
    std::vector<std::byte> stored(row_bytes(type, all_columns));
    quantize_row(type, row.data(), all_columns, stored.data());
    std::vector<float> expected(all_columns);
    dequantize_row(type, stored.data(), all_columns, expected.data());
    const packed_row packed(type, stored, 256, 256);
    for (std::size_t g = 0; g < 256; g += int4_group) {
      const auto* values = expected.data() + 256 + g;
      const auto [least, most] = std::minmax_element(values, values + int4_group);
      const float step = (*most - *least) / 15;
      std::set<float> seen;
      for (std::size_t i = 0; i < int4_group; ++i) {
        // Half a step, and what rounding scale and minimum to f16 shifts.
        CHECK(std::fabs(packed.values[g + i] - values[i]) <= 0.52F * step);
        seen.insert(packed.values[g + i]);
      }
      CHECK(seen.size() > 4);
    }
  }
}

TEST_CASE("equal weights and zeros survive", "[int4]") {
  for (const float value : {0.0F, 0.25F, -3.0F}) {
    const std::vector<float> row(all_columns, value);
    std::vector<std::byte> stored(row_bytes(tensor_type::f32, all_columns));
    quantize_row(tensor_type::f32, row.data(), all_columns, stored.data());
    CHECK(packed_row(tensor_type::f32, stored, 0, 256).values == std::vector<float>(256, value));
  }
}

TEST_CASE("codes lie where the tensor cores take them", "[int4]") {
  std::vector<float> row(all_columns, 0.0F);
  for (std::size_t g = 0; g < 8; ++g)
    row[g * 32] = -8, row[g * 32 + 1] = 7; // steps of 1 from -8: the code of v is v + 8
  row[32 + 19] = 4;                        // group 1: piece 2, word 1, pair 1, second value
  std::vector<std::byte> stored(row_bytes(tensor_type::f32, all_columns));
  quantize_row(tensor_type::f32, row.data(), all_columns, stored.data());
  const packed_row packed(tensor_type::f32, stored, 0, 256);
  const auto* word = packed.codes.data() + 2 * 16 + 1 * 4;
  const unsigned bits =
      word[0] | word[1] << 8 | word[2] << 16 | static_cast<unsigned>(word[3]) << 24;
  CHECK((bits >> (4 * 1 + 16) & 15) == 12);
  CHECK((bits >> (4 * 1) & 15) == 8);
}
