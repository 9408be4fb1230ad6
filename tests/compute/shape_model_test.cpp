#include "compute/executor.hpp"
#include "compute/shape_model.hpp"
#include "tests/catch.hpp"

using namespace hexgen::compute;

namespace {

const std::string models = std::string(HEXGEN_SOURCE_DIR) + "/config/models/";

} // namespace

TEST_CASE("a shape stands for a model of its sizes") {
  const auto model = open_shape_model(models + "smollm2-135m.yaml");
  CHECK(model->config().head_dim == 64);
  CHECK(model->config().kv_heads == 3);
  const auto* q = model->find("blk.0.attn_q.weight");
  REQUIRE(q != nullptr);
  CHECK(q->rows == 576);
  CHECK(model->find("blk.30.attn_q.weight") == nullptr);
  // 134.5 million parameters of 2 bytes.
  CHECK(model->total_bytes() > 268'000'000U);
  CHECK(model->total_bytes() < 270'000'000U);
  CHECK(open_model(models + "smollm2-135m.yaml")->total_bytes() == model->total_bytes());
}

TEST_CASE("its memory is told without values, and filled in it runs") {
  auto config = open_shape_model(models + "smollm2-135m.yaml")->config();
  config.layers = 1;
  config.vocab = 512;
  const shape_model model(config);
  const auto part = make_shards(config, 0, 1, {1.0}).front();
  executor_options options;
  options.max_logit_rows = 1;
  const auto planned = cpu_executor_memory(model, part, options);
  const auto cpu = make_cpu_executor(model.filled(), part, options);
  CHECK(planned.weight_bytes == cpu->memory().weight_bytes);
  cpu->allocate_kv(1);
  step s;
  s.entries = {{1, 0, 1, 1, {0}}};
  solo_collective alone;
  std::vector<float> hidden(576), logits(512);
  cpu->run(s, std::vector<std::int32_t>{3}, hidden, logits, alone);
  CHECK(logits[0] != logits[1]);
}

TEST_CASE("its tokenizer takes bytes and never ends a sequence") {
  const auto tokens = open_tokenizer(models + "smollm2-135m.yaml");
  CHECK(tokens->encode("az", true, true) == std::vector<token_id>{'a', 'z'});
  CHECK(tokens->piece(27, true) == "b");
  CHECK(tokens->end_ids().empty());
}
