#include "actors/data/device_worker.hpp"

#include "actors/data/device_backend.hpp"
#include "actors/data/rank_runtime.hpp"
#include "actors/data/serving_shape.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

namespace hexgen::actors {
namespace {

using generation_key = std::pair<std::uint64_t, std::uint64_t>; // replica, generation

bool same_shard(const rank_spec& a, const rank_spec& b) {
  const auto as_numbers = [](const rank_spec& s) {
    return std::tuple(s.stage, s.stages, s.executor.kernels, s.executor.kv,
                      s.executor.max_step_tokens, s.executor.max_logit_rows, s.max_sequence,
                      s.deterministic, s.stage_recovery);
  };
  return a.part == b.part && as_numbers(a) == as_numbers(b);
}

class thread_device_worker final : public device_worker {
public:
  thread_device_worker(device_options options, data_plane& out, device_signals signals)
      : options_(std::move(options)), backend_(make_device_backend(options_)), out_(out),
        signals_(std::move(signals)), loader_([this] { loader_loop(); }) {}

  ~thread_device_worker() override {
    {
      const std::lock_guard guard(mutex_);
      closing_ = true;
      for (auto& [key, entry] : ranks_)
        if (entry.runtime)
          entry.runtime->abort("the device is shutting down");
    }
    wake_.notify_all();
    loader_.join();
    ranks_.clear();
  }

  [[nodiscard]] const device_options& options() const override { return options_; }

  void prepare(rank_spec spec, model_source model, std::shared_ptr<const compute::tokenizer> tokens,
               std::function<void(prepare_result)> done) override {
    const generation_key key{spec.replica, spec.generation};
    {
      const std::lock_guard guard(mutex_);
      ranks_[key].spec = spec;
    }
    enqueue([this, key, spec = std::move(spec), model = std::move(model),
             tokens = std::move(tokens), done = std::move(done)]() mutable {
      done(load(key, std::move(spec), model, std::move(tokens)));
    });
  }

  void commit(std::uint64_t replica, std::uint64_t generation, kv_start start,
              std::function<void(std::string)> done) override {
    enqueue([this, key = generation_key{replica, generation}, start, done = std::move(done)] {
      const auto runtime = find(key);
      if (!runtime) {
        done("the generation was not prepared here");
        return;
      }
      try {
        runtime->start(start);
      } catch (const compute::device_lost& e) {
        signals_.lost(e.what());
        done(e.what());
        return;
      } catch (const std::exception& e) {
        done(std::string("the KV pool cannot be allocated: ") + e.what());
        return;
      }
      done({});
    });
  }

  void release(std::uint64_t replica, std::uint64_t generation, bool keep,
               std::function<void()> done) override {
    abort(replica, generation);
    enqueue([this, key = generation_key{replica, generation}, keep, done = std::move(done)] {
      std::shared_ptr<rank_runtime> runtime;
      {
        const std::lock_guard guard(mutex_);
        const auto found = ranks_.find(key);
        if (found != ranks_.end()) {
          found->second.closing = true;
          runtime = found->second.runtime;
        }
      }
      // Until its thread has ended its memory is in use, and a step that hangs is still to be seen.
      if (runtime)
        runtime->close();
      if (runtime && keep)
        keep_for_a_while(*runtime);
      {
        const std::lock_guard guard(mutex_);
        ranks_.erase(key);
      }
      runtime.reset();
      done();
    });
  }

  void abort(std::uint64_t replica, std::uint64_t generation) override {
    if (const auto runtime = find({replica, generation}))
      runtime->abort("the generation was aborted");
  }

  bool on_frame(std::shared_ptr<const transport::frame> f) override {
    try {
      if (f->type == proto::COLLECTIVE) {
        const auto head = wire::decode_collective(f->head);
        const auto runtime = find_rank(head.replica, head.generation, head.stage, head.to_rank);
        if (runtime)
          runtime->on_collective(head, std::move(f));
        return runtime != nullptr;
      }
      auto head = wire::decode_step(f->head);
      const auto runtime = find_rank(head.replica, head.generation, head.stage, head.rank);
      if (runtime)
        runtime->on_step(std::move(head), std::move(f));
      return runtime != nullptr;
    } catch (const wire::wire_error&) {
      return false; // a frame that cannot be read belongs to nobody
    }
  }

  [[nodiscard]] std::vector<rank_progress> progress() const override {
    std::vector<rank_progress> all;
    const std::lock_guard guard(mutex_);
    for (const auto& [key, entry] : ranks_)
      if (entry.runtime)
        all.push_back(entry.runtime->progress());
      else
        all.push_back({key.first, key.second, 0, 0, 0, 0, 0, entry.loaded});
    return all;
  }

  void measure(std::shared_ptr<const compute::model_file> model, compute::executor_options options,
               int max_sequence, std::function<void(device_rates)> done) override {
    enqueue([this, model = std::move(model), options, max_sequence, done = std::move(done)] {
      device_rates rates; // none: the device cannot run the model, which prepare() will say
      try {
        rates = measure_now(model, options);
        rates.sizes = sizes_of(model->config(), [&](const compute::shard& part) {
          return backend_->memory({model, part, options, max_sequence});
        });
      } catch (const compute::device_lost& e) {
        signals_.lost(e.what());
      } catch (const std::exception&) {
      }
      done(rates);
    });
  }

private:
  struct entry {
    rank_spec spec;
    std::shared_ptr<rank_runtime> runtime;
    double loaded = 0;
    bool closing = false; // takes no frames any more
  };

  void enqueue(std::function<void()> task) {
    {
      const std::lock_guard guard(mutex_);
      tasks_.push_back(std::move(task));
    }
    wake_.notify_one();
  }

  void loader_loop() {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock guard(mutex_);
        const auto ready = [&] { return closing_ || !tasks_.empty(); };
        if (!kept_) {
          wake_.wait(guard, ready);
        } else if (!wake_.wait_until(guard, keep_until_, ready)) {
          kept_.reset();
          continue;
        }
        if (closing_)
          return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  [[nodiscard]] std::shared_ptr<rank_runtime> find(const generation_key& key) const {
    const std::lock_guard guard(mutex_);
    const auto found = ranks_.find(key);
    return found == ranks_.end() || found->second.closing ? nullptr : found->second.runtime;
  }

  [[nodiscard]] std::shared_ptr<rank_runtime> find_rank(std::uint64_t replica,
                                                        std::uint64_t generation,
                                                        std::uint32_t stage,
                                                        std::uint32_t rank) const {
    auto runtime = find({replica, generation});
    if (runtime && runtime->spec().stage == stage &&
        runtime->spec().part.rank == static_cast<int>(rank))
      return runtime;
    return nullptr;
  }

  void keep_for_a_while(rank_runtime& ended) {
    kept_ = ended.leave();
    keep_until_ = std::chrono::steady_clock::now() + keep_for;
  }

  /// What was kept, when it is the same shard and runs in the same way; otherwise it makes way.
  std::optional<kept_rank> take_kept(const rank_spec& wanted) {
    auto found = std::exchange(kept_, std::nullopt);
    if (!found || found->kv_blocks == 0 || !same_shard(found->spec, wanted))
      return std::nullopt;
    return found;
  }

  [[nodiscard]] std::uint64_t memory_in_use(const generation_key& except) const {
    const std::lock_guard guard(mutex_);
    std::uint64_t used = 0;
    for (const auto& [key, entry] : ranks_)
      if (key != except && entry.runtime)
        used += entry.runtime->memory_bytes();
    return used;
  }

  prepare_result load(const generation_key& key, rank_spec spec, const model_source& source,
                      std::shared_ptr<const compute::tokenizer> tokens) {
    prepare_result result;
    auto kept = take_kept(spec);
    const std::uint64_t used = memory_in_use(key);
    const std::uint64_t budget = options_.memory_bytes > used ? options_.memory_bytes - used : 0;
    try {
      if (kept) {
        result.memory = kept->executor->memory();
        result.kv_blocks = kept->kv_blocks;
        result.kept = kept->spec.generation;
        result.known = std::move(kept->known);
        result.known_step = kept->known_step;
        result.late = std::move(kept->late);
        adopt(key, std::move(spec), std::move(tokens), std::move(*kept), result);
        return result;
      }
      // What has to be fetched counts as half of the work: its bytes are known, its speed is not.
      double fetched = 0;
      const auto tell = [this, key](double share) {
        const std::lock_guard guard(mutex_);
        if (const auto found = ranks_.find(key); found != ranks_.end())
          found->second.loaded = std::min(share, std::nextafter(1.0, 0.0)); // until it is adopted
      };
      const auto share = [](std::uint64_t done, std::uint64_t total) {
        return static_cast<double>(done) / static_cast<double>(std::max<std::uint64_t>(1, total));
      };
      auto model = source(spec.part, [&](std::uint64_t done, std::uint64_t total) {
        fetched = 0.5;
        tell(fetched * share(done, total));
      });
      executor_request wanted{std::move(model), spec.part, spec.executor, spec.max_sequence,
                              spec.deterministic};
      wanted.options.progress = [tell, share, fetched](std::uint64_t done, std::uint64_t total) {
        tell(fetched + (1 - fetched) * share(done, total));
      };
      const auto& config = wanted.model->config();
      result.memory = backend_->memory(wanted);
      result.memory.kv_block_bytes = rank_runtime::kv_block_bytes(spec, result.memory, config);
      const std::uint64_t need = result.memory.weight_bytes + result.memory.activation_bytes +
                                 result.memory.kv_block_bytes;
      if (need > budget) {
        result.error = "device " + std::to_string(options_.index) + " needs " +
                       std::to_string(need) + " bytes for the shard and one KV block, has " +
                       std::to_string(budget);
        return result;
      }
      auto executor = backend_->make(wanted);
      result.memory = executor->memory();
      result.memory.kv_block_bytes = rank_runtime::kv_block_bytes(spec, result.memory, config);
      const auto left =
          budget - std::min(budget, result.memory.weight_bytes + result.memory.activation_bytes);
      // A rank without layers of its own has no KV: it does not bound the pool.
      const auto fits =
          result.memory.kv_block_bytes == 0 ? max_kv_blocks : left / result.memory.kv_block_bytes;
      result.kv_blocks = static_cast<std::uint32_t>(std::min<std::uint64_t>(fits, max_kv_blocks));
      adopt(key, std::move(spec), std::move(tokens), {{}, std::move(executor), 0, {}, 0, {}, {}},
            result);
    } catch (const compute::device_lost& e) {
      result.error = e.what();
      signals_.lost(e.what());
    } catch (const std::exception& e) {
      result.error = e.what();
    }
    return result;
  }

  void adopt(const generation_key& key, rank_spec spec,
             std::shared_ptr<const compute::tokenizer> tokens, kept_rank from,
             prepare_result& result) {
    auto runtime = std::make_shared<rank_runtime>(
        std::move(spec), options_.speed, out_, slot_, std::move(tokens), std::move(from),
        rank_signals{
            [this, key](const std::string& why) { signals_.failed(key.first, key.second, why); },
            signals_.lost});
    const std::lock_guard guard(mutex_);
    const auto found = ranks_.find(key);
    if (found == ranks_.end())
      result.error = "the generation was released while it was loading";
    else
      found->second.runtime = std::move(runtime);
  }

  device_rates measure_now(const std::shared_ptr<const compute::model_file>& model,
                           compute::executor_options options);

  static constexpr std::uint64_t max_kv_blocks = 1U << 16;
  static constexpr std::chrono::seconds keep_for{10};

  const device_options options_;
  const std::unique_ptr<device_backend> backend_;
  data_plane& out_;
  const device_signals signals_;
  compute_slot slot_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  std::map<generation_key, entry> ranks_;
  std::optional<kept_rank> kept_; // the loader thread's, as is
  std::chrono::steady_clock::time_point keep_until_{};
  bool closing_ = false;
  std::thread loader_; // last: starts in the constructor
};

/// The least of at least `repeats` timings of `what`, in microseconds, slowed down to `speed`. The
/// least, since what else the machine does while agents start can only add to a timing; for a while
/// and with pauses, so that of several that measure at the same time each is alone in some of them.
template <class F>
double least_us(int repeats, double speed, F what) {
  using clock = std::chrono::steady_clock;
  constexpr auto long_enough = std::chrono::milliseconds(400);
  const auto start = clock::now();
  auto least = clock::duration::max();
  for (int i = 0; i < repeats || (i < 4 * repeats && clock::now() - start < long_enough); ++i) {
    const auto begin = clock::now();
    what();
    const auto spent = clock::now() - begin;
    least = std::min(least, spent);
    std::this_thread::sleep_for(spent / 2);
  }
  return std::chrono::duration<double, std::micro>(least).count() / std::min(speed, 1.0);
}

device_rates
thread_device_worker::measure_now(const std::shared_ptr<const compute::model_file>& model,
                                  compute::executor_options options) {
  // A few layers, so that their weights do not all stay in the nearest cache.
  constexpr int measured_layers = 6;
  const int prefill_tokens = backend_->measured_prompt_tokens();
  const auto kv_blocks = static_cast<std::uint32_t>((prefill_tokens + 64) / compute::block_tokens);
  const auto& config = model->config();
  const int layers = std::min(measured_layers, config.layers);
  options.max_step_tokens = prefill_tokens;
  options.max_logit_rows = 1;
  options.progress = nullptr;

  compute::step prefill;
  prefill.entries.resize(1);
  prefill.entries[0].tokens = prefill_tokens;
  for (std::uint32_t b = 0; b < kv_blocks; ++b)
    prefill.entries[0].blocks.push_back(b);
  compute::step decode = prefill;
  decode.entries[0].position = prefill_tokens;
  decode.entries[0].tokens = 1;
  compute::solo_collective alone;

  device_rates rates;
  {
    auto part = compute::make_shards(config, 0, layers, {1.0}).front();
    part.first = false;
    part.last = false;
    auto executor = backend_->make({model, part, options, prefill_tokens + 64});
    executor->allocate_kv(kv_blocks);
    std::vector<float> hidden(static_cast<std::size_t>(prefill_tokens * config.hidden), 0.01F);
    const std::span<float> one(hidden.data(), static_cast<std::size_t>(config.hidden));
    const std::lock_guard turn(slot_);
    executor->run(prefill, {}, hidden, {}, alone); // touches all weights once
    rates.prefill_us_per_token_layer =
        least_us(5, options_.speed, [&] { executor->run(prefill, {}, hidden, {}, alone); }) /
        (prefill_tokens * layers);
    rates.decode_us_per_layer =
        least_us(40, options_.speed, [&] { executor->run(decode, {}, one, {}, alone); }) / layers;
  }
  {
    // The head alone: the last layer with it, less the layer.
    auto part = compute::make_shards(config, config.layers - 1, 1, {1.0}).front();
    part.first = false;
    auto executor = backend_->make({model, part, options, prefill_tokens + 64});
    executor->allocate_kv(kv_blocks);
    decode.entries[0].logits = 1;
    std::vector<float> hidden(static_cast<std::size_t>(config.hidden), 0.01F);
    std::vector<float> logits(static_cast<std::size_t>(config.vocab));
    const std::lock_guard turn(slot_);
    executor->run(decode, {}, hidden, logits, alone);
    const double both =
        least_us(15, options_.speed, [&] { executor->run(decode, {}, hidden, logits, alone); });
    rates.decode_us_head = std::max(0.0, both - rates.decode_us_per_layer);
  }
  return rates;
}

} // namespace

std::unique_ptr<device_worker> make_device_worker(device_options options, data_plane& out,
                                                  device_signals signals) {
  return std::make_unique<thread_device_worker>(std::move(options), out, std::move(signals));
}

} // namespace hexgen::actors
