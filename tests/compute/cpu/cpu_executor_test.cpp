#include "compute/executor.hpp"
#include "compute/synthetic.hpp"
#include "tests/catch.hpp"
#include "tests/compute/cpu/runner.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

namespace hexgen::compute::testing {

namespace {

constexpr tensor_type all_types[] = {tensor_type::f32,  tensor_type::f16,  tensor_type::bf16,
                                     tensor_type::q8_0, tensor_type::q4_0, tensor_type::q4_1,
                                     tensor_type::q5_0, tensor_type::q5_1, tensor_type::iq4_nl,
                                     tensor_type::q4_k, tensor_type::q5_k, tensor_type::q6_k};

model_config wide() {
  auto c = tiny_config();
  c.hidden = 256;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 64;
  c.ffn = 768;
  return c;
}

struct fixture {
  fixture() {
    options.max_step_tokens = 8;
    options.max_logit_rows = 2;
    const auto model = make_synthetic_model(tiny_config(), tensor_type::q8_0, 1);
    device = make_cpu_executor(model, make_shards(model->config(), 0, 2, {1.0})[0], options);
    device->allocate_kv(4);
  }
  void run(const hexgen::compute::step& s) {
    const auto tokens = static_cast<std::size_t>(std::max(s.tokens(), 0));
    std::vector<std::int32_t> ids(tokens, 1);
    std::vector<float> hidden(tokens * static_cast<std::size_t>(device->config().hidden));
    logits.assign(static_cast<std::size_t>(std::max(s.logit_rows(), 0)) *
                      static_cast<std::size_t>(device->config().vocab),
                  0.0F);
    device->run(s, ids, hidden, logits, solo);
  }
  executor_options options;
  std::unique_ptr<executor> device;
  std::vector<float> logits;
  solo_collective solo;
};

} // namespace

TEST_CASE("fast kernels follow the reference for every weight type", "[cpu_executor]") {
  for (const auto type : all_types) {
    CAPTURE(to_string(type));
    const auto model = make_synthetic_model(wide(), type, 2);
    std::vector<std::vector<float>> rows[2];
    for (const auto kernels : {kernel_kind::reference, kernel_kind::fast}) {
      executor_options options;
      options.kernels = kernels;
      runner r(model, one_device(model->config()), options, 8);
      rows[kernels == kernel_kind::fast] = r.step({{0, {1, 2, 3, 4, 5, 6, 7, 8, 9}, 9}});
    }
    float worst = 0;
    float largest = 0;
    for (std::size_t i = 0; i < rows[0].size(); ++i)
      for (std::size_t v = 0; v < rows[0][i].size(); ++v) {
        worst = std::max(worst, std::fabs(rows[0][i][v] - rows[1][i][v]));
        largest = std::max(largest, std::fabs(rows[0][i][v]));
      }
    CHECK(largest > 0.1F);
    CHECK(worst <= 2e-3F * largest);
  }
}

TEST_CASE("what is predicted is what is used", "[cpu_executor]") {
  for (const auto type : all_types)
    for (const auto kernels : {kernel_kind::reference, kernel_kind::fast}) {
      const auto model = make_synthetic_model(wide(), type, 2);
      executor_options options;
      options.kernels = kernels;
      for (const auto& part : make_shards(model->config(), 0, 2, {2.0, 1.0})) {
        const auto planned = cpu_executor_memory(*model, part, options);
        const auto actual = make_cpu_executor(model, part, options)->memory();
        CHECK(planned.weight_bytes == actual.weight_bytes);
        CHECK(planned.activation_bytes == actual.activation_bytes);
        CHECK(planned.kv_block_bytes == actual.kv_block_bytes);
        CHECK(planned.weight_bytes > 0);
      }
    }
}

TEST_CASE("loading a shard tells how much of it is there", "[cpu_executor]") {
  const auto model = make_synthetic_model(tiny_config(), tensor_type::q8_0, 1);
  executor_options options;
  std::vector<std::uint64_t> done;
  std::uint64_t all = 0;
  options.progress = [&](std::uint64_t bytes, std::uint64_t total) {
    done.push_back(bytes);
    all = total;
  };
  const auto part = make_shards(model->config(), 0, 1, {1.0})[0]; // half of the layers
  const auto device = make_cpu_executor(model, part, options);
  REQUIRE(done.size() > 4);
  CHECK(std::is_sorted(done.begin(), done.end()));
  CHECK(done.front() < all / 2);
  CHECK(done.back() == all);
  CHECK(all == device->memory().weight_bytes);
}

TEST_CASE("packed weights take the place of the file's pages", "[cpu_executor]") {
  const auto file_pages = [] { // this process's resident pages of files
    std::ifstream statm("/proc/self/statm");
    long size = 0;
    long resident = 0;
    long shared = 0;
    statm >> size >> resident >> shared;
    return shared;
  };
  const auto model = default_model();
  const auto before = file_pages();
  const auto part = make_shards(model->config(), 0, model->config().layers, {1.0})[0];
  const auto device = make_cpu_executor(model, part, {});
  CHECK(device->memory().weight_bytes >= 96'000'000);
  CHECK((file_pages() - before) * 4096 < 16'000'000);
}

TEST_CASE("a step that names what is not there is refused", "[cpu_executor]") {
  fixture f;
  f.run({{{1, 0, 2, 1, {3}}}, {}});
  CHECK_THROWS_AS(f.run({{{1, 0, 2, 1, {4}}}, {}}), std::invalid_argument);       // block
  CHECK_THROWS_AS(f.run({{{1, 16, 1, 1, {3}}}, {}}), std::invalid_argument);      // table too short
  CHECK_THROWS_AS(f.run({{{1, 0, 9, 1, {3}}}, {}}), std::invalid_argument);       // too wide
  CHECK_THROWS_AS(f.run({{{1, 0, 2, 3, {3}}}, {}}), std::invalid_argument);       // logits > tokens
  CHECK_THROWS_AS(f.run({{{1, 0, 3, 3, {3}}}, {}}), std::invalid_argument);       // logit rows
  CHECK_THROWS_AS(f.run({{{1, -1, 1, 1, {3}}}, {}}), std::invalid_argument);      // position
  CHECK_THROWS_AS(f.run({{{1, 0, 2, 1, {3}}}, {{0, 9}}}), std::invalid_argument); // copy
  CHECK_THROWS_AS(f.run({{{1, 0, 0, 0, {3}}}, {}}), std::invalid_argument);       // no tokens
  f.run({{{1, 0, 2, 1, {3}}}, {}}); // and it still works
}

TEST_CASE("a token id outside the vocabulary is refused", "[cpu_executor]") {
  fixture f;
  const hexgen::compute::step s{{{1, 0, 1, 1, {0}}}, {}};
  std::vector<float> hidden(static_cast<std::size_t>(f.device->config().hidden));
  std::vector<float> logits(static_cast<std::size_t>(f.device->config().vocab));
  for (const std::int32_t id : {-1, f.device->config().vocab}) {
    const std::vector<std::int32_t> ids{id};
    CHECK_THROWS_AS(f.device->run(s, ids, hidden, logits, f.solo), std::invalid_argument);
  }
}

TEST_CASE("a copied block continues as the one it was copied from", "[cpu_executor]") {
  fixture f;
  f.run({{{1, 0, 5, 0, {0}}}, {}});
  f.run({{{1, 5, 1, 1, {0}}}, {}});
  const auto expected = f.logits;
  f.run({{{1, 0, 5, 0, {0}}}, {}});
  f.run({{{2, 5, 1, 1, {2}}}, {{0, 2}}});
  CHECK(f.logits == expected);
}

TEST_CASE("forced levels must be the machine's", "[cpu_executor]") {
  CHECK_FALSE(cpu_levels().empty());
  CHECK_THROWS_AS(set_cpu_level("abacus"), std::invalid_argument);
  set_cpu_level(cpu_levels().back());
  set_cpu_level("");
}

} // namespace hexgen::compute::testing
