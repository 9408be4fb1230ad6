#include "compute/synthetic.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <cstring>
#include <vector>

using namespace hexgen::compute;

namespace {

bool same(const tensor_view& a, const tensor_view& b) {
  return a.bytes.size() == b.bytes.size() &&
         std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
}

} // namespace

TEST_CASE("a synthetic model follows from its seed alone") {
  const auto config = tiny_config("qwen2");
  const auto first = make_synthetic_model(config, tensor_type::q4_1, 11);
  const auto again = make_synthetic_model(config, tensor_type::q4_1, 11);
  const auto other = make_synthetic_model(config, tensor_type::q4_1, 12);
  for (const auto& tensor : first->tensors()) {
    INFO(tensor.name);
    CHECK(same(tensor, *again->find(tensor.name)));
    CHECK_FALSE(same(tensor, *other->find(tensor.name)));
  }
  CHECK_FALSE(same(*first->find("blk.0.attn_q.weight"), *first->find("blk.1.attn_q.weight")));
  // A fixed value: the same on every machine.
  float row[128];
  const auto floats = make_synthetic_model(config, tensor_type::f32, 11);
  dequantize_row(tensor_type::f32, floats->find("blk.0.attn_norm.weight")->bytes.data(), 128, row);
  CHECK(row[0] == 0x1.18499ap+0F);
}

TEST_CASE("a synthetic model has the family's tensors and sensible scales") {
  const auto qwen3 = make_synthetic_model(tiny_config("qwen3"), tensor_type::f32, 1);
  CHECK(qwen3->find("blk.1.attn_q_norm.weight") != nullptr);
  CHECK(qwen3->find("blk.1.attn_q.bias") == nullptr);
  CHECK(qwen3->find("output.weight") == nullptr);
  const auto llama = make_synthetic_model(tiny_config("llama"), tensor_type::f32, 1);
  CHECK(llama->find("output.weight") != nullptr);
  const auto* matrix = llama->find("blk.0.ffn_up.weight");
  std::vector<float> row(128);
  double squares = 0;
  for (int r = 0; r < 256; ++r) {
    dequantize_row(matrix->type, matrix->bytes.data() + r * 512, 128, row.data());
    for (const float value : row)
      squares += static_cast<double>(value) * value;
  }
  CHECK(squares / 256 == Approx(1.0).epsilon(0.05)); // a row's squares sum to one
}

TEST_CASE("a synthetic model that cannot be is refused") {
  auto config = tiny_config();
  CHECK_THROWS_AS(make_synthetic_model(config, tensor_type::q4_k, 1), std::invalid_argument);
  config.kv_heads = 3;
  CHECK_THROWS_AS(make_synthetic_model(config, tensor_type::f32, 1), file_error);
  CHECK_THROWS_AS(tiny_config("gpt2"), std::invalid_argument);
}
