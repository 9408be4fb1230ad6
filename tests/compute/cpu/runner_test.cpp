#include "tests/catch.hpp"
#include "tests/compute/cpu/memory_group.hpp"
#include "tests/compute/cpu/runner.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>

namespace hexgen::compute::testing {

runner::runner(std::shared_ptr<const model_file> model, const test_layout& layout,
               const executor_options& options, std::uint32_t blocks, std::uint32_t seed)
    : model_(std::move(model)), free_(blocks) {
  int first = 0;
  for (std::size_t i = 0; i < layout.layers.size(); ++i) {
    auto& stage = stages_.emplace_back();
    for (const auto& s : make_shards(config(), first, layout.layers[i], layout.speeds[i])) {
      stage.ranks.push_back(make_cpu_executor(model_, s, options));
      stage.ranks.back()->allocate_kv(blocks);
    }
    first += layout.layers[i];
  }
  std::iota(free_.rbegin(), free_.rend(), 0U);
  if (seed != 0)
    std::shuffle(free_.begin(), free_.end(), std::mt19937(seed));
}

std::vector<std::vector<float>> runner::step(const std::vector<test_run>& runs) {
  hexgen::compute::step s;
  std::vector<std::int32_t> ids;
  for (const auto& r : runs) {
    const auto index = static_cast<std::size_t>(r.sequence);
    if (sequences_.size() <= index)
      sequences_.resize(index + 1);
    auto& state = sequences_[index];
    const auto tokens = static_cast<std::int32_t>(r.ids.size());
    while (static_cast<std::int32_t>(state.blocks.size()) * block_tokens <
           state.position + tokens) {
      if (free_.empty())
        throw std::runtime_error("runner: out of blocks");
      state.blocks.push_back(free_.back());
      free_.pop_back();
    }
    s.entries.push_back({index, state.position, tokens, r.logits, state.blocks});
    state.position += tokens;
    ids.insert(ids.end(), r.ids.begin(), r.ids.end());
  }
  const auto vocab = static_cast<std::size_t>(config().vocab);
  std::vector<float> hidden(ids.size() * static_cast<std::size_t>(config().hidden));
  std::vector<float> logits(static_cast<std::size_t>(s.logit_rows()) * vocab);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const bool last = i + 1 == stages_.size();
    run_stage(stages_[i], s,
              i == 0 ? std::span<const std::int32_t>(ids) : std::span<const std::int32_t>(), hidden,
              last ? std::span<float>(logits) : std::span<float>());
  }
  std::vector<std::vector<float>> rows;
  for (std::size_t i = 0; i * vocab < logits.size(); ++i)
    rows.emplace_back(logits.begin() + static_cast<std::ptrdiff_t>(i * vocab),
                      logits.begin() + static_cast<std::ptrdiff_t>((i + 1) * vocab));
  return rows;
}

void runner::run_stage(test_stage& stage, const hexgen::compute::step& s,
                       std::span<const std::int32_t> ids, std::vector<float>& hidden,
                       std::span<float> logits) {
  const auto degree = stage.ranks.size();
  if (degree == 1) {
    solo_collective solo;
    stage.ranks[0]->run(s, ids, hidden, logits, solo);
    return;
  }
  shared_group shared(static_cast<int>(degree));
  std::vector<std::vector<float>> copies(degree, hidden);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < degree; ++r)
    threads.emplace_back([&, r] {
      memory_group group(shared, static_cast<int>(r));
      const bool leads = r == 0;
      stage.ranks[r]->run(s, leads ? ids : std::span<const std::int32_t>(), copies[r],
                          leads ? logits : std::span<float>(), group);
    });
  for (auto& t : threads)
    t.join();
  for (const auto& copy : copies)
    if (copy != copies[0])
      throw std::runtime_error("runner: the ranks' outputs differ");
  hidden = copies[0];
}

void runner::close(int sequence) {
  auto& state = sequences_.at(static_cast<std::size_t>(sequence));
  free_.insert(free_.end(), state.blocks.begin(), state.blocks.end());
  state = {};
}

test_layout one_device(const model_config& config) {
  return {{config.layers}, {{1.0}}};
}

std::shared_ptr<const model_file> default_model() {
  namespace fs = std::filesystem;
  const char* file = std::getenv("HEXGEN_MODEL");
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  fs::path path = file != nullptr ? fs::path(file) : fs::path();
  if (path.empty()) {
    path =
        cache != nullptr ? fs::path(cache) : fs::path(home != nullptr ? home : "/root") / ".cache";
    path /= "hexgen/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  }
  if (!fs::exists(path))
    throw std::runtime_error("the default model is not at " + path.string() +
                             ": tools/fetch_model.sh gets it");
  static const auto model = open_model(path);
  return model;
}

int largest_index(std::span<const float> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

} // namespace hexgen::compute::testing
