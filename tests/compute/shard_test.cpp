#include "compute/shard.hpp"
#include "tests/catch.hpp"

#include <random>
#include <stdexcept>

namespace hexgen::compute {

namespace {

model_config shape(int kv_heads, int ffn, int vocab, int layers = 4) {
  model_config c;
  c.layers = layers;
  c.kv_heads = kv_heads;
  c.heads = kv_heads * 2;
  c.ffn = ffn;
  c.vocab = vocab;
  return c;
}

} // namespace

TEST_CASE("FFN leaves are runs of whole blocks", "[shard]") {
  CHECK(ffn_leaf_cuts(shape(3, 1536, 100)) == std::vector<int>{0, 256, 512, 768, 1024, 1280, 1536});
  CHECK(ffn_leaf_cuts(shape(3, 64, 100)) == std::vector<int>{0, 64});
  const auto llama = ffn_leaf_cuts(shape(32, 11008, 100));
  REQUIRE(llama.size() == 17);
  for (std::size_t i = 0; i + 1 < llama.size(); ++i) {
    const int width = llama[i + 1] - llama[i];
    CHECK((width == 512 || width == 768));
  }
  // What 256 does not divide goes to the last run.
  const auto ragged = ffn_leaf_cuts(shape(2, 4896, 100));
  CHECK(ragged.back() == 4896);
  CHECK(ragged[ragged.size() - 2] % 256 == 0);
}

TEST_CASE("shards of any speeds are complete, disjoint and in rank order", "[shard]") {
  std::mt19937 random(1);
  for (int round = 0; round < 500; ++round) {
    const int kv_heads = 1 + static_cast<int>(random() % 16);
    const int ranks = 1 + static_cast<int>(random() % static_cast<unsigned>(kv_heads));
    const auto c = shape(kv_heads, 32 * (1 + static_cast<int>(random() % 400)),
                         1 + static_cast<int>(random() % 60000));
    std::vector<double> speeds;
    for (int r = 0; r < ranks; ++r)
      speeds.push_back(std::uniform_real_distribution<>(0.01, 10)(random));
    const auto shards = make_shards(c, 0, c.layers, speeds);
    REQUIRE(shards.size() == speeds.size());
    int head = 0;
    int leaf = 0;
    int row = 0;
    for (int r = 0; r < ranks; ++r) {
      const auto& s = shards[static_cast<std::size_t>(r)];
      CHECK(s.rank == r);
      CHECK(s.degree == ranks);
      CHECK(s.kv_head_begin == head);
      CHECK(s.kv_head_end > s.kv_head_begin);
      CHECK(s.ffn_leaf_begin == leaf);
      CHECK(s.ffn_leaf_end >= leaf);
      CHECK(s.vocab_begin == row);
      CHECK(s.vocab_end >= row);
      CHECK((s.vocab_end % 32 == 0 || s.vocab_end == c.vocab));
      head = s.kv_head_end;
      leaf = s.ffn_leaf_end;
      row = s.vocab_end;
    }
    CHECK(head == kv_heads);
    CHECK(leaf == static_cast<int>(ffn_leaf_cuts(c).size()) - 1);
    CHECK(row == c.vocab);
  }
}

TEST_CASE("shares follow the speeds", "[shard]") {
  const auto c = shape(3, 1536, 49152);
  const auto shards = make_shards(c, 0, 4, {2.0, 1.0});
  CHECK(shards[0].kv_head_end == 2);
  CHECK(shards[0].ffn_leaf_end == 4);
  CHECK(shards[0].vocab_end == 32768);
  // A very slow rank still has one KV head, but no FFN leaf.
  const auto slow = make_shards(c, 0, 4, {1.0, 0.001});
  CHECK(slow[1].kv_head_begin == 2);
  CHECK(slow[1].ffn_leaf_begin == slow[1].ffn_leaf_end);
}

TEST_CASE("first and last stages are marked", "[shard]") {
  const auto c = shape(3, 1536, 49152);
  const auto middle = make_shards(c, 1, 2, {1.0})[0];
  CHECK_FALSE(middle.first);
  CHECK_FALSE(middle.last);
  const auto whole = make_shards(c, 0, 4, {1.0})[0];
  CHECK(whole.first);
  CHECK(whole.last);
}

TEST_CASE("impossible splits are refused", "[shard]") {
  const auto c = shape(3, 1536, 49152);
  CHECK_THROWS_AS(make_shards(c, 0, 4, {1, 1, 1, 1}), std::invalid_argument);
  CHECK_THROWS_AS(make_shards(c, 0, 4, {}), std::invalid_argument);
  CHECK_THROWS_AS(make_shards(c, 0, 4, {1, 0}), std::invalid_argument);
  CHECK_THROWS_AS(make_shards(c, 2, 3, {1}), std::invalid_argument);
  CHECK_THROWS_AS(make_shards(c, -1, 2, {1}), std::invalid_argument);
  CHECK_THROWS_AS(make_shards(c, 0, 0, {1}), std::invalid_argument);
}

} // namespace hexgen::compute
