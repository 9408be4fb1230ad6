// The data path in one process: ranks on threads, a loop-back data plane, a fake executor.
#include "actors/data/rank_runtime.hpp"
#include "tests/catch.hpp"
#include "transport/proto/hexgen.pb.h"

#include <atomic>
#include <cstring>

using namespace hexgen;
using namespace hexgen::actors;
using namespace std::chrono_literals;

namespace {

/// Hands frames to the ranks by their keys, like an agent's dispatcher.
class loop_plane final : public data_plane {
public:
  bool send(const node_process& to, transport::frame f) override {
    const auto& node = to.name;
    if (node == dead_node)
      return false;
    auto shared = std::make_shared<const transport::frame>(std::move(f));
    if (shared->type == proto::STEP_RESULT) {
      const std::lock_guard guard(mutex);
      results.push_back(wire::decode_step_result(shared->head));
      arrived.notify_all();
    } else if (shared->type == proto::COLLECTIVE) {
      const auto head = wire::decode_collective(shared->head);
      ranks.at({head.stage, head.to_rank})->on_collective(head, shared);
    } else {
      ++hops;
      auto head = wire::decode_step(shared->head);
      auto* rank = ranks.at({head.stage, head.rank});
      rank->on_step(std::move(head), shared);
    }
    return true;
  }
  void attend(const std::function<bool()>&, std::chrono::microseconds) override {}
  wire::step_result wait_result(std::size_t n) {
    std::unique_lock guard(mutex);
    REQUIRE(arrived.wait_for(guard, 20s, [&] { return results.size() > n; }));
    return results[n];
  }

  std::map<std::pair<std::uint32_t, std::uint32_t>, rank_runtime*> ranks;
  std::string dead_node;
  std::atomic<int> hops{0};
  std::mutex mutex;
  std::condition_variable arrived;
  std::vector<wire::step_result> results;
};

/// Adds, per layer, the sum over ranks of (rank + 1); the logits favour hidden[0] as a token.
class fake_executor final : public compute::executor {
public:
  /// `inputs`: what comes in is added there.
  explicit fake_executor(compute::shard part, std::vector<float>* inputs = nullptr)
      : part_(part), inputs_(inputs) {
    config_.hidden = 4;
    config_.vocab = 512;
  }
  const compute::model_config& config() const override { return config_; }
  const compute::shard& part() const override { return part_; }
  compute::executor_memory memory() const override { return {100, 10, 1}; }
  void allocate_kv(std::uint32_t) override {}
  void run(const compute::step& s, std::span<const std::int32_t> ids, std::span<float> hidden,
           std::span<float> logits, compute::collective& group) override {
    if (inputs_ != nullptr)
      inputs_->insert(inputs_->end(), hidden.begin(), hidden.end());
    if (part_.first) {
      if (group.rank() == 0)
        for (std::size_t t = 0; t < ids.size(); ++t)
          for (int c = 0; c < 4; ++c)
            hidden[t * 4 + static_cast<std::size_t>(c)] = static_cast<float>(ids[t]);
      group.broadcast(std::as_writable_bytes(hidden));
    }
    const auto degree = static_cast<std::size_t>(group.degree());
    for (int layer = 0; layer < part_.layers; ++layer) {
      std::vector<float> parts(degree);
      parts[static_cast<std::size_t>(group.rank())] = static_cast<float>(group.rank() + 1);
      std::vector<std::span<std::byte>> all;
      for (auto& p : parts)
        all.push_back(std::as_writable_bytes(std::span<float>(&p, 1)));
      group.all_gather(all[static_cast<std::size_t>(group.rank())], all);
      for (auto& h : hidden)
        for (const float p : parts)
          h += p;
    }
    std::size_t token = 0;
    std::size_t row = 0;
    for (const auto& entry : s.entries) {
      token += static_cast<std::size_t>(entry.tokens);
      if (logits.empty() || entry.logits == 0)
        continue;
      for (auto t = token - static_cast<std::size_t>(entry.logits); t < token; ++t) {
        auto out = logits.subspan(512 * row++, 512);
        std::fill(out.begin(), out.end(), 0.0F);
        out[static_cast<std::size_t>(hidden[t * 4])] = 1.0F;
      }
    }
  }

private:
  compute::model_config config_;
  compute::shard part_;
  std::vector<float>* inputs_;
};

class letters final : public compute::tokenizer {
public:
  std::vector<compute::token_id> encode(std::string_view, bool, bool) const override { return {}; }
  std::string piece(compute::token_id, bool) const override { return "x"; }
  int vocab() const override { return 512; }
  bool is_special(compute::token_id) const override { return false; }
  compute::token_id bos() const override { return -1; }
  compute::token_id eos() const override { return 511; }
  std::span<const compute::token_id> end_ids() const override { return ends_; }
  const std::string& chat_template() const override { return none_; }

private:
  std::vector<compute::token_id> ends_{511};
  std::string none_;
};

/// A whole model on a device that chooses tokens: greedy rows get id + 1, others their logits. A
/// step of 13 tokens loses it. While `held`, no step ends.
class choosing_executor final : public compute::executor {
public:
  explicit choosing_executor(std::atomic<int>& begun, std::atomic<bool>& held)
      : begun_(begun), held_(held) {
    config_.hidden = 4, config_.vocab = 512;
  }
  const compute::model_config& config() const override { return config_; }
  const compute::shard& part() const override { return part_; }
  compute::executor_memory memory() const override { return {100, 10, 1}; }
  void allocate_kv(std::uint32_t) override {}
  void run(const compute::step&, std::span<const std::int32_t>, std::span<float>, std::span<float>,
           compute::collective&) override {
    throw std::logic_error("the device was to choose");
  }
  bool chooses_tokens() const override { return true; }
  void begin_choosing(const compute::step& s, std::span<const std::int32_t> ids, std::span<float>,
                      std::span<const compute::row_choice> choices, compute::collective&) override {
    if (s.tokens() == 13)
      throw compute::device_lost("an illegal address");
    if (steps_.size() >= 2 || (!steps_.empty() && steps_.back().on_host))
      throw std::logic_error("too many steps are begun");
    begun b;
    for (std::size_t r = 0; r < choices.size(); ++r) {
      b.ids.push_back(ids[r] < 0 ? chosen_.at(static_cast<std::size_t>(-1 - ids[r])) : ids[r]);
      b.choices.push_back(choices[r]);
      b.on_host = b.on_host || choices[r].on_host;
    }
    chosen_.clear();
    for (std::size_t r = 0; r < choices.size(); ++r)
      chosen_.push_back(choices[r].on_host ? -1 : b.ids[r] + 1);
    steps_.push_back(std::move(b));
    ++begun_;
  }
  bool chosen() override { return !held_; }
  void end_choosing(std::span<std::int32_t> tokens, std::span<float> logits) override {
    const auto b = std::move(steps_.front());
    steps_.pop_front();
    for (std::size_t r = 0; r < b.ids.size(); ++r) {
      tokens[r] = b.choices[r].on_host ? -1 : b.ids[r] + 1;
      if (b.choices[r].on_host) {
        const auto row = logits.subspan(r * 512, 512);
        std::fill(row.begin(), row.end(), 0.0F);
        row[static_cast<std::size_t>(b.ids[r]) + 2] = 1.0F;
      }
    }
  }

private:
  struct begun {
    std::vector<std::int32_t> ids;
    std::vector<compute::row_choice> choices;
    bool on_host = false;
  };
  compute::model_config config_;
  compute::shard part_;
  std::vector<std::int32_t> chosen_; // of the step begun last
  std::deque<begun> steps_;
  std::atomic<int>& begun_;
  std::atomic<bool>& held_;
};

/// Stage 0 of degree 2 with 3 layers, stage 1 of degree 1 with 2.
struct pipeline {
  loop_plane plane;
  compute_slot slots[3];
  std::atomic<int> failures{0};
  std::vector<std::unique_ptr<rank_runtime>> ranks;
  std::vector<float> last_inputs; // what came to the last stage

  /// `kept`: of the first stage's ranks, whose KV goes on; the last stage is new then.
  explicit pipeline(double speed = 1.0, std::vector<kept_rank> kept = {}) {
    const auto tokens = std::make_shared<letters>();
    for (std::uint32_t i = 0; i < 3; ++i) {
      rank_spec spec;
      spec.replica = 7;
      spec.generation = 3;
      spec.stages = 2;
      spec.stage = i < 2 ? 0 : 1;
      spec.part.first = spec.stage == 0;
      spec.part.last = spec.stage == 1;
      spec.part.rank = i < 2 ? static_cast<int>(i) : 0;
      spec.part.degree = i < 2 ? 2 : 1;
      spec.part.layers = i < 2 ? 3 : 2;
      spec.rank_nodes = i < 2 ? std::vector<node_process>{{"a", 1}, {"b", 1}}
                              : std::vector<node_process>{{"c", 1}};
      spec.next_node = {i < 2 ? "c" : "", 1};
      spec.replica_node = {"a", 1};
      spec.stage_recovery = true;
      kept_rank from{{}, nullptr, 0, {}, 0, {}, {}};
      if (i < kept.size())
        from = std::move(kept[i]);
      else
        from.executor = std::make_unique<fake_executor>(spec.part, i < 2 ? nullptr : &last_inputs);
      ranks.push_back(std::make_unique<rank_runtime>(
          spec, speed, plane, slots[i], tokens, std::move(from),
          rank_signals{[this](const std::string&) { ++failures; }, {}}));
      plane.ranks[{spec.stage, static_cast<std::uint32_t>(spec.part.rank)}] = ranks.back().get();
      ranks.back()->start(kept.empty() ? kv_start{8} : kv_start{8, 2, i == 2, i < 2});
    }
  }
  void submit(std::uint64_t number, compute::token_id id, const std::string& grammar = {}) {
    wire::step_message head;
    head.replica = 7;
    head.generation = 3;
    head.step = number;
    compute::step_entry entry;
    entry.sequence = 1;
    entry.position = static_cast<std::int32_t>(number - 1);
    entry.tokens = 1;
    entry.logits = 1;
    entry.blocks = {0, 1, 2}; // 48 positions
    head.work.entries = {entry};
    head.ids = {id};
    if (number == 1) {
      wire::sequence_open open;
      open.sequence = 1;
      open.params.temperature = 0;
      open.params.grammar = grammar;
      open.params.max_tokens = 100;
      open.prompt = {id};
      head.opens = {open};
    }
    transport::frame f;
    f.type = proto::STEP;
    f.head = wire::encode(head);
    plane.send({"a", 1}, std::move(f));
  }
};

} // namespace

TEST_CASE("a pipeline of unlike stages carries a step through, one message a hop") {
  pipeline p;
  // 3 layers x (1 + 2) + 2 layers x 1
  p.submit(1, 10);
  const auto first = p.plane.wait_result(0);
  REQUIRE(first.error.empty());
  REQUIRE(first.tokens.size() == 1);
  CHECK(first.tokens[0].token.id == 10 + 9 + 2);
  CHECK(first.tokens[0].index == 0);
  CHECK(first.stage_us.size() == 2);
  CHECK(p.plane.hops == 3); // to stage 0, to its second rank, to stage 1
  for (std::uint64_t n = 2; n <= 40; ++n)
    p.submit(n, static_cast<compute::token_id>(n)); // all in flight at once
  for (std::uint64_t n = 2; n <= 40; ++n) {
    const auto r = p.plane.wait_result(n - 1);
    REQUIRE(r.step == n); // in order
    CHECK(r.tokens[0].token.id == static_cast<compute::token_id>(n) + 11);
    CHECK(r.tokens[0].index == static_cast<std::int32_t>(n - 1));
  }
  CHECK(p.plane.hops == 3 * 40);
  CHECK(p.plane.results.size() == 40);
  CHECK(p.failures == 0);
}

TEST_CASE("a step of many sequences is one message a hop, and so is its result") {
  pipeline p;
  constexpr std::uint64_t steps = 5, sequences = 32;
  for (std::uint64_t n = 1; n <= steps; ++n) {
    wire::step_message head;
    head.replica = 7;
    head.generation = 3;
    head.step = n;
    for (std::uint64_t s = 1; s <= sequences; ++s) {
      // A prompt's first part in the odd steps, what is sampled from in the even ones.
      const std::int32_t logits = n % 2 == 0 ? 1 : 0;
      head.work.entries.push_back({s, static_cast<std::int32_t>(n - 1), 1, logits, {0, 1, 2}});
      head.ids.push_back(static_cast<compute::token_id>(s));
      if (n == 2) {
        wire::sequence_open open;
        open.sequence = s;
        open.params.temperature = 0;
        open.params.max_tokens = 100;
        open.prompt = {1, static_cast<compute::token_id>(s)};
        head.opens.push_back(open);
      }
    }
    transport::frame f;
    f.type = proto::STEP;
    f.head = wire::encode(head);
    p.plane.send({"a", 1}, std::move(f));
  }
  for (std::uint64_t n = 1; n <= steps; ++n) {
    const auto r = p.plane.wait_result(n - 1);
    REQUIRE(r.error.empty());
    CHECK(r.step == n);
    CHECK(r.tokens.size() == (n % 2 == 0 ? sequences : 0));
  }
  CHECK(p.plane.hops == 3 * steps); // to stage 0, to its second rank, to stage 1
  CHECK(p.plane.results.size() == steps);
  CHECK(p.failures == 0);
}

TEST_CASE("a sequence that no sampler takes is refused and its generation goes on") {
  pipeline p;
  p.submit(1, 10, "{");
  const auto first = p.plane.wait_result(0);
  CHECK(first.error.empty());
  REQUIRE(first.tokens.size() == 1);
  CHECK(first.tokens[0].error.find("not JSON") != std::string::npos);
  CHECK(first.tokens[0].token.ends);
  p.submit(2, 11);
  CHECK(p.plane.wait_result(1).error.empty());
  CHECK(p.failures == 0);
}

TEST_CASE("tokens of a run with drafts come until one is not the draft in its place") {
  pipeline p;
  p.submit(1, 10);
  REQUIRE(p.plane.wait_result(0).tokens.at(0).token.id == 21);
  wire::step_message head;
  head.replica = 7;
  head.generation = 3;
  head.step = 2;
  head.work.entries = {{1, 1, 4, 4, {0, 1, 2}}};
  head.ids = {21, 32, 43, 50}; // after 43 comes 54
  head.drafts = {32, 43, 50};
  transport::frame f;
  f.type = proto::STEP;
  f.head = wire::encode(head);
  p.plane.send({"a", 1}, std::move(f));
  const auto r = p.plane.wait_result(1);
  REQUIRE(r.error.empty());
  std::vector<int> ids, indices;
  for (const auto& t : r.tokens) {
    ids.push_back(t.token.id);
    indices.push_back(t.index);
  }
  CHECK(ids == std::vector<int>{32, 43, 54});
  CHECK(indices == std::vector<int>{1, 2, 3});
}

TEST_CASE("a new stage computes what it inherits from what the stage before it kept") {
  std::vector<float> inputs;
  std::vector<kept_rank> kept;
  {
    pipeline p;
    for (std::uint64_t n = 1; n <= 32; ++n)
      p.submit(n, static_cast<compute::token_id>(n + 10));
    REQUIRE(p.plane.wait_result(31).error.empty());
    for (auto& rank : p.ranks)
      rank->close();
    inputs = p.last_inputs;
    kept.push_back(p.ranks[0]->leave());
    kept.push_back(p.ranks[1]->leave());
    CHECK(kept[0].hidden.size() == 8 * 16 * 4);
    CHECK(kept[1].hidden.empty()); // the leader keeps it
  }
  REQUIRE(inputs.size() == 32 * 4);
  pipeline p(1.0, std::move(kept));
  wire::step_message head;
  head.replica = 7;
  head.generation = 3;
  head.step = 1;
  head.refill = true;
  head.ids.assign(16, 1);                       // the first stage has them
  head.work.entries = {{5, 16, 16, 0, {0, 1}}}; // the second of the sequence's blocks
  transport::frame f;
  f.type = proto::STEP;
  f.head = wire::encode(head);
  p.plane.send({"a", 1}, std::move(f));
  const auto r = p.plane.wait_result(0);
  REQUIRE(r.error.empty());
  CHECK(r.tokens.empty());
  CHECK(r.stage_us.empty());
  CHECK(p.last_inputs == std::vector<float>(inputs.begin() + 16 * 4, inputs.end()));
}

TEST_CASE("a device held back computes the same") {
  pipeline p(0.5);
  p.submit(1, 5);
  CHECK(p.plane.wait_result(0).tokens[0].token.id == 16);
}

TEST_CASE("a step out of order fails its generation, once") {
  pipeline p;
  p.submit(2, 10);
  const auto r = p.plane.wait_result(0);
  CHECK(r.error.find("step 2 came after step 0") != std::string::npos);
  p.submit(1, 10);
  for (const auto& rank : p.ranks)
    rank->close(); // its thread has said all it had to say
  CHECK(p.failures == 1);
}

TEST_CASE("a rank leaves a collective within 100 ms of its abort") {
  pipeline p;
  p.plane.ranks[{0, 1}]->abort("test"); // rank 1 will never answer
  p.submit(1, 10);
  for (int i = 0; i < 200 && p.ranks[0]->progress().running_ms == 0; ++i)
    std::this_thread::sleep_for(1ms);
  const auto begin = std::chrono::steady_clock::now();
  p.ranks[0].reset();                                   // aborts and joins
  CHECK(std::chrono::steady_clock::now() - begin < 1s); // 100 ms on an idle machine
}

TEST_CASE("a peer that cannot be reached fails the generation") {
  pipeline p;
  p.plane.dead_node = "c";
  p.submit(1, 10);
  const auto r = p.plane.wait_result(0);
  CHECK(r.error.find("c cannot be reached") != std::string::npos);
  p.ranks[0]->close(); // its thread has said all it had to say
  CHECK(p.failures == 1);
}

namespace {

/// One rank on a device that chooses tokens.
struct choosing_rank {
  loop_plane plane;
  compute_slot slot;
  std::atomic<int> failures{0}, losses{0}, begun{0};
  std::atomic<bool> held{false};
  std::unique_ptr<rank_runtime> rank;

  choosing_rank() {
    rank_spec spec;
    spec.replica = 7;
    spec.generation = 3;
    spec.rank_nodes = {{"a", 1}};
    spec.replica_node = {"a", 1};
    rank = std::make_unique<rank_runtime>(
        spec, 1.0, plane, slot, std::make_shared<letters>(),
        kept_rank{{}, std::make_unique<choosing_executor>(begun, held), 0, {}, 0, {}, {}},
        rank_signals{[this](const std::string&) { ++failures; },
                     [this](const std::string&) { ++losses; }});
    plane.ranks[{0, 0}] = rank.get();
    rank->start({8});
  }
  ~choosing_rank() { rank.reset(); }

  void submit(std::uint64_t number, const std::vector<compute::sampling_params>& params,
              int tokens_each = 1) {
    wire::step_message head;
    head.replica = 7;
    head.generation = 3;
    head.step = number;
    for (std::size_t i = 0; i < params.size(); ++i) {
      compute::step_entry entry;
      entry.sequence = i + 1;
      entry.tokens = tokens_each;
      entry.logits = 1;
      entry.blocks = {0};
      head.work.entries.push_back(entry);
      if (number > 1) { // goes on from what the device chose
        head.ids.push_back(compute::unknown_token);
        continue;
      }
      const auto id = static_cast<compute::token_id>(10 * (i + 1));
      for (int t = 0; t < tokens_each; ++t)
        head.ids.push_back(id);
      wire::sequence_open open;
      open.sequence = i + 1;
      open.params = params[i];
      open.prompt = {id};
      head.opens.push_back(open);
    }
    transport::frame f;
    f.type = proto::STEP;
    f.head = wire::encode(head);
    plane.send({"a", 1}, std::move(f));
  }
};

} // namespace

TEST_CASE("a device chooses the tokens that need nothing but the logits") {
  compute::sampling_params greedy, penal, few;
  greedy.temperature = penal.temperature = few.temperature = 0;
  penal.frequency_penalty = 0.5F;
  few.max_tokens = 1;
  choosing_rank r;
  r.submit(1, {greedy, penal, few});
  const auto result = r.plane.wait_result(0);
  REQUIRE(result.error.empty());
  REQUIRE(result.tokens.size() == 3);
  CHECK(result.tokens[0].token.id == 11); // by the device
  CHECK(result.tokens[1].token.id == 22); // from the logits
  CHECK(result.tokens[2].token.id == 31);
  CHECK_FALSE(result.tokens[0].token.ends);
  CHECK(result.tokens[2].token.ends_by_length);
  CHECK(r.failures == 0);
}

TEST_CASE("the next step is begun while the device computes, from the tokens that it chooses") {
  compute::sampling_params greedy, few;
  greedy.temperature = few.temperature = 0;
  few.stop_ids = {22};
  choosing_rank r;
  r.held = true;
  for (std::uint64_t n = 1; n <= 4; ++n)
    r.submit(n, {greedy, few});
  for (int i = 0; i < 2000 && r.begun < 2; ++i)
    std::this_thread::sleep_for(1ms);
  CHECK(r.begun == 2);
  CHECK(r.plane.results.empty());
  r.held = false;
  for (int n = 1; n <= 4; ++n) {
    const auto result = r.plane.wait_result(static_cast<std::size_t>(n - 1));
    REQUIRE(result.error.empty());
    REQUIRE(result.tokens.size() == (n <= 2 ? 2 : 1)); // one ended with its second token
    CHECK(result.tokens[0].token.id == 10 + n);
    CHECK(result.tokens[0].index == n - 1);
    if (n <= 2)
      CHECK(result.tokens[1].token.ends == (n == 2));
  }
  CHECK(r.failures == 0);
}

TEST_CASE("a step waits for the one before whose tokens are chosen on the host") {
  compute::sampling_params greedy, penal;
  greedy.temperature = penal.temperature = 0;
  penal.frequency_penalty = 0.5F;
  choosing_rank r;
  for (std::uint64_t n = 1; n <= 5; ++n)
    r.submit(n, {greedy, penal});
  for (int n = 1; n <= 5; ++n) {
    const auto result = r.plane.wait_result(static_cast<std::size_t>(n - 1));
    REQUIRE(result.error.empty());
    CHECK(result.tokens[0].token.id == 10 + n);
    CHECK(result.tokens[1].token.id == 20 + 2 * n);
  }
  CHECK(r.failures == 0);
}

TEST_CASE("a rank whose device does not answer ends") {
  compute::sampling_params greedy;
  choosing_rank r;
  r.held = true;
  r.submit(1, {greedy});
  for (int i = 0; i < 2000 && r.rank->progress().running_ms == 0; ++i)
    std::this_thread::sleep_for(1ms);
  CHECK(r.rank->progress().running_ms > 0);
  r.rank.reset();
  CHECK(r.plane.results.empty());
}

TEST_CASE("a lost device is told apart from a failed step") {
  compute::sampling_params greedy;
  greedy.temperature = 0;
  choosing_rank r;
  r.submit(1, {greedy}, 13);
  CHECK(r.plane.wait_result(0).error.find("an illegal address") != std::string::npos);
  for (int i = 0; i < 2000 && r.losses == 0; ++i)
    std::this_thread::sleep_for(1ms);
  CHECK(r.losses == 1);
  CHECK(r.failures == 1);
}
