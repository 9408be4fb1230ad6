#include "compute/executor.hpp"
#include "compute/model_file.hpp"
#include "tests/catch.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>

using namespace hexgen::compute;

namespace {

/// The model's logits for `ids`, all in one step on one device with the reference kernels.
std::vector<float> logits_of(const std::shared_ptr<const model_file>& model,
                             const std::vector<std::int32_t>& ids) {
  const auto& config = model->config();
  const auto parts = make_shards(config, 0, config.layers, {1.0});
  executor_options options;
  options.kernels = kernel_kind::reference;
  options.max_step_tokens = static_cast<int>(ids.size());
  options.max_logit_rows = static_cast<int>(ids.size());
  const auto device = make_cpu_executor(model, parts[0], options);
  const auto blocks = (ids.size() + block_tokens - 1) / block_tokens;
  device->allocate_kv(static_cast<std::uint32_t>(blocks));
  step_entry entry;
  entry.tokens = entry.logits = static_cast<std::int32_t>(ids.size());
  for (std::uint32_t block = 0; block < blocks; ++block)
    entry.blocks.push_back(block);
  step s;
  s.entries.push_back(entry);
  std::vector<float> hidden(ids.size() * static_cast<std::size_t>(config.hidden));
  std::vector<float> logits(ids.size() * static_cast<std::size_t>(config.vocab));
  solo_collective alone;
  device->run(s, ids, hidden, logits, alone);
  return logits;
}

} // namespace

TEST_CASE("every family's logits are those of transformers") {
  for (const char* name :
       {"llama", "llama3", "llama_linear", "mistral", "qwen2", "qwen2_yarn", "qwen3"}) {
    INFO(name);
    const auto folder = std::string(HEXGEN_SOURCE_DIR "/tests/golden/families/") + name;
    std::ifstream file(folder + "/logits.json");
    const auto golden = nlohmann::json::parse(file);
    const auto ids = golden.at("ids").get<std::vector<std::int32_t>>();
    const auto logits = logits_of(open_model(folder), ids);
    double worst = 0;
    std::size_t at = 0;
    for (const auto& row : golden.at("logits"))
      for (const auto& value : row)
        worst =
            std::max(worst, std::fabs(value.get<double>() - static_cast<double>(logits.at(at++))));
    CHECK(at == logits.size());
    CHECK(worst < 1e-3);
  }
}
