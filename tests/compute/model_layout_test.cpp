#include "compute/model_digest.hpp"
#include "compute/model_layout.hpp"
#include "compute/synthetic.hpp"
#include "tests/catch.hpp"
#include "tests/compute/files/model_writer.hpp"

#include <algorithm>
#include <set>

using namespace hexgen::compute;
using namespace hexgen::tests;

namespace {

std::uint64_t sum(const std::vector<file_range>& ranges) {
  std::uint64_t bytes = 0;
  for (const auto& r : ranges)
    bytes += r.bytes;
  return bytes;
}

std::uint64_t tails(const model_file& model) {
  std::uint64_t bytes = 0;
  for (const auto& t : model.tensors())
    bytes += t.bytes.size() - std::min(t.bytes.size(), digest_sample_bytes);
  return bytes;
}

} // namespace

TEST_CASE("skeleton and tensors make up a model's files") {
  const temporary_folder at;
  const auto made = make_synthetic_model(tiny_config(), tensor_type::f32, 1);
  write_file(at.path() / "m.gguf", gguf_bytes(*made));
  const auto model = open_model(at.path() / "m.gguf");
  const auto layout = layout_of(*model, at.path() / "m.gguf");
  CHECK(!layout.folder);
  REQUIRE(layout.files.size() == 1);
  CHECK(layout.files[0].name == "m.gguf");
  CHECK(sum(layout.skeleton) + tails(*model) == layout.files[0].bytes);

  std::filesystem::create_directory(at.path() / "hf");
  write_hf_folder(*made, at.path() / "hf", 2);
  write_file(at.path() / "hf" / "README.md", std::string_view("no part of the model"));
  const auto folder = open_model(at.path() / "hf");
  const auto files = layout_of(*folder, at.path() / "hf");
  CHECK(files.folder);
  std::uint64_t bytes = 0;
  std::set<std::string> names;
  for (const auto& f : files.files) {
    bytes += f.bytes;
    names.insert(f.name);
  }
  CHECK(names.contains("config.json"));
  CHECK(!names.contains("README.md"));
  CHECK(sum(files.skeleton) + tails(*folder) == bytes);
}

TEST_CASE("a shard reads its layers, and what comes before and after them where it has that") {
  auto config = tiny_config();
  config.layers = 12;
  const auto names = [](const model_file& model, int first, int layers) {
    std::set<std::string> out;
    for (const auto* t : tensors_of(model, make_shards(model.config(), first, layers, {1.0})[0]))
      out.emplace(t->name);
    return out;
  };
  for (const bool tied : {true, false}) {
    config.tied_head = tied;
    const auto model = make_synthetic_model(config, tensor_type::f32, 1);
    const auto middle = names(*model, 1, 1);
    CHECK(middle.contains("blk.1.attn_q.weight"));
    CHECK(!middle.contains("blk.10.attn_q.weight"));
    CHECK(!middle.contains("token_embd.weight"));
    CHECK(!middle.contains("output_norm.weight"));
    CHECK(names(*model, 0, 1).contains("token_embd.weight"));
    const auto last = names(*model, 10, 2);
    CHECK(last.contains("blk.11.ffn_down.weight"));
    CHECK(last.contains("output_norm.weight"));
    CHECK(last.contains("output.weight") == !tied);
    CHECK(last.contains("token_embd.weight") == tied);
    CHECK(names(*model, 0, 12).size() == model->tensors().size());
  }
}
