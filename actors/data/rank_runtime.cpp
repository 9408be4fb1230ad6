#include "actors/data/rank_runtime.hpp"

#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <cstring>

namespace hexgen::actors {

using std::chrono::steady_clock;

namespace {

// About what the wake-ups cost that looking for the next step for so long may save.
constexpr std::chrono::microseconds step_patience{20};

} // namespace

rank_runtime::rank_runtime(rank_spec spec, double speed, data_plane& out, compute_slot& slot,
                           std::shared_ptr<const compute::tokenizer> tokens,
                           std::unique_ptr<compute::executor> executor, rank_signals signals)
    : spec_(std::move(spec)), out_(out), slot_(slot), tokens_(std::move(tokens)),
      executor_(std::move(executor)), signals_(std::move(signals)), limiter_(speed),
      group_({spec_.replica, spec_.generation, spec_.stage, spec_.part.rank, spec_.rank_nodes}, out,
             mail_, slot_, limiter_) {
  const auto memory = executor_->memory();
  memory_bytes_ = memory.weight_bytes + memory.activation_bytes;
}

rank_runtime::~rank_runtime() {
  close();
}

void rank_runtime::close() {
  abort("released");
  if (thread_.joinable())
    thread_.join();
}

void rank_runtime::start(std::uint32_t kv_blocks) {
  executor_->allocate_kv(kv_blocks);
  const std::lock_guard guard(mutex_);
  memory_bytes_ += kv_blocks * executor_->memory().kv_block_bytes;
  started_ = true;
  thread_ = std::thread([this] {
    loop();
    const std::lock_guard ending(mutex_);
    ended_ = true;
    running_since_ = {};
  });
}

void rank_runtime::abort(const std::string& reason) {
  mail_.abort(reason);
  {
    const std::lock_guard guard(mutex_);
    if (!closing_)
      unanswered_since_ = queue_.empty() ? steady_clock::now() : queue_.front().came;
    closing_ = true;
    queue_.clear();
  }
  wake_.notify_all();
}

rank_progress rank_runtime::progress() const {
  const std::lock_guard guard(mutex_);
  rank_progress p{spec_.replica,   spec_.generation, last_step_, 0,
                  running_tokens_, done_tokens_,     done_us_};
  // A step that nobody takes up is as late as one that does not end, and so is the end itself.
  auto since = running_since_;
  if (since == steady_clock::time_point{} && closing_ && started_ && !ended_)
    since = unanswered_since_;
  else if (since == steady_clock::time_point{} && !queue_.empty()) {
    since = queue_.front().came;
    p.running_tokens = static_cast<std::uint64_t>(queue_.front().head.work.tokens());
  }
  if (since != steady_clock::time_point{})
    p.running_ms = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - since).count());
  return p;
}

void rank_runtime::on_step(wire::step_message head, std::shared_ptr<const transport::frame> f) {
  bool full = false;
  {
    const std::lock_guard guard(mutex_);
    if (closing_)
      return;
    full = queue_.size() >= queue_limit;
    if (!full)
      queue_.push_back({std::move(head), std::move(f), steady_clock::now()});
  }
  if (full)
    fail("more than " + std::to_string(queue_limit) + " steps are queued");
  else
    wake_.notify_one();
}

void rank_runtime::on_collective(const wire::collective_head& head,
                                 std::shared_ptr<const transport::frame> f) {
  if (!mail_.deliver(head, std::move(f)))
    fail("a rank's collective mailbox is full");
}

void rank_runtime::fail(const std::string& reason) {
  {
    const std::lock_guard guard(mutex_);
    if (failed_once_ || closing_)
      return;
    failed_once_ = true;
  }
  abort(reason);
  // The replica hears of it at once; the coordinator by the agent's report.
  wire::step_result result;
  result.replica = spec_.replica;
  result.generation = spec_.generation;
  result.error = "stage " + std::to_string(spec_.stage) + " rank " +
                 std::to_string(spec_.part.rank) + ": " + reason;
  transport::frame f;
  f.type = proto::STEP_RESULT;
  f.head = wire::encode(result);
  out_.send(spec_.replica_node, std::move(f));
  signals_.failed(reason);
}

void rank_runtime::loop() {
  pthread_setname_np(pthread_self(), "hexgen-rank"); // for whoever looks with top -H
  for (;;) {
    out_.attend(
        [&] {
          const std::lock_guard guard(mutex_);
          return closing_ || !queue_.empty();
        },
        step_patience);
    work w;
    {
      std::unique_lock guard(mutex_);
      if (running_since_ != steady_clock::time_point{}) {
        done_tokens_ += running_tokens_;
        done_us_ +=
            static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                           steady_clock::now() - running_since_)
                                           .count());
      }
      running_since_ = {};
      running_tokens_ = 0;
      wake_.wait(guard, [&] { return closing_ || !queue_.empty(); });
      if (closing_)
        return;
      w = std::move(queue_.front());
      queue_.pop_front();
      running_since_ = steady_clock::now();
      running_tokens_ = static_cast<std::uint64_t>(w.head.work.tokens());
    }
    try {
      run_step(std::move(w));
    } catch (const compute::device_lost& e) {
      fail(e.what());
      if (signals_.lost)
        signals_.lost(e.what());
      return;
    } catch (const std::exception& e) {
      fail(e.what());
      return;
    }
  }
}

void rank_runtime::open_sequences(const wire::step_message& head) {
  for (const auto id : head.closes) {
    samplers_.erase(id);
    refused_.erase(id);
  }
  for (const auto& open : head.opens) {
    try {
      samplers_.insert_or_assign(open.sequence, compute::sequence_sampler(open.params, open.prompt,
                                                                          open.emitted, tokens_));
    } catch (const std::invalid_argument& e) {
      // The gateway checks what it takes; a router of another build may not.
      wire::sampled none;
      none.sequence = open.sequence;
      none.index = static_cast<int>(open.emitted.size());
      none.token.ends = true;
      none.error = e.what();
      refused_.insert_or_assign(open.sequence, std::move(none));
    }
  }
}

bool rank_runtime::refuse(std::uint64_t sequence, wire::step_result& result) const {
  const auto found = refused_.find(sequence);
  if (found != refused_.end())
    result.tokens.push_back(found->second);
  return found != refused_.end();
}

void rank_runtime::run_step(work w) {
  auto& head = w.head;
  if (head.step != last_step_ + 1)
    throw std::runtime_error("step " + std::to_string(head.step) + " came after step " +
                             std::to_string(last_step_));
  const auto width = static_cast<std::size_t>(executor_->config().hidden);
  const auto tokens = static_cast<std::size_t>(head.work.tokens());
  auto hidden = std::make_shared<std::vector<float>>(tokens * width);
  const bool first = spec_.stage == 0;
  if (!first) {
    const auto bytes = w.frame->payload.bytes();
    if (bytes.size() != hidden->size() * sizeof(float))
      throw std::runtime_error("activations of step " + std::to_string(head.step) + " are " +
                               std::to_string(bytes.size()) + " bytes, expected " +
                               std::to_string(hidden->size() * sizeof(float)));
    std::memcpy(hidden->data(), bytes.data(), bytes.size());
  } else if (leader() && head.ids.size() != tokens) {
    throw std::runtime_error("step " + std::to_string(head.step) + " has no token ids");
  }
  if (leader()) {
    // The other ranks get the leader's own message: the same order, the same activations.
    for (std::uint32_t r = 1; r < spec_.rank_nodes.size(); ++r) {
      wire::step_message copy;
      copy.replica = head.replica;
      copy.generation = head.generation;
      copy.step = head.step;
      copy.stage = spec_.stage;
      copy.rank = r;
      copy.work = head.work;
      transport::frame f;
      f.traffic_class = transport::traffic::data;
      f.type = proto::RANK_STEP;
      f.head = wire::encode(copy);
      f.payload = w.frame->payload;
      if (!out_.send(spec_.rank_nodes[r], std::move(f)))
        throw std::runtime_error("rank " + std::to_string(r) + " on " + spec_.rank_nodes[r].name +
                                 " cannot be reached");
    }
  }
  w.frame.reset(); // gives the sender's window back
  forward(head, hidden);
  const std::lock_guard guard(mutex_);
  last_step_ = head.step;
}

void rank_runtime::forward(wire::step_message& head,
                           const std::shared_ptr<std::vector<float>>& hidden) {
  const auto rows = static_cast<std::size_t>(head.work.logit_rows());
  const bool samples = last() && leader();
  const bool chooses = samples && executor_->chooses_tokens() && spec_.rank_nodes.size() == 1;
  std::span<float> logits;
  if (samples)
    open_sequences(head);
  if (samples && !chooses) {
    logits_.resize(rows * static_cast<std::size_t>(executor_->config().vocab));
    logits = logits_;
  }
  wire::step_result result;
  double compute_us = 0;
  {
    const std::lock_guard turn(slot_);
    group_.begin_step(head.step);
    if (chooses) {
      run_choosing(head, *hidden, result);
    } else {
      executor_->run(head.work, head.ids, *hidden, logits, group_);
      if (samples)
        sample(head, logits, result);
    }
    compute_us = group_.end_step();
  }
  mail_.forget_before(head.step);
  if (!leader())
    return;
  head.stage_us.push_back(static_cast<std::uint64_t>(compute_us));
  transport::frame f;
  node_process to;
  if (last()) {
    result.replica = head.replica;
    result.generation = head.generation;
    result.step = head.step;
    result.stage_us = head.stage_us;
    f.type = proto::STEP_RESULT;
    f.head = wire::encode(result);
    to = spec_.replica_node;
  } else {
    head.ids.clear();
    head.stage = spec_.stage + 1;
    head.rank = 0;
    f.traffic_class = transport::traffic::data;
    f.type = proto::STEP;
    f.head = wire::encode(head);
    f.payload = transport::buffer(hidden, std::as_bytes(std::span<const float>(*hidden)));
    to = spec_.next_node;
  }
  if (!out_.send(to, std::move(f)))
    throw std::runtime_error(to.name + " cannot be reached");
}

void rank_runtime::sample(const wire::step_message& head, std::span<float> logits,
                          wire::step_result& result) {
  const auto vocab = static_cast<std::size_t>(executor_->config().vocab);
  std::size_t row = 0;
  for (const auto& entry : head.work.entries) {
    if (entry.logits == 0)
      continue;
    row += static_cast<std::size_t>(entry.logits);
    if (refuse(entry.sequence, result))
      continue;
    auto& sampler = sampler_of(entry.sequence);
    wire::sampled out;
    out.sequence = entry.sequence;
    out.index = sampler.generated();
    out.token = sampler.next(logits.subspan((row - 1) * vocab, vocab));
    result.tokens.push_back(std::move(out));
  }
}

compute::sequence_sampler& rank_runtime::sampler_of(std::uint64_t sequence) {
  const auto found = samplers_.find(sequence);
  if (found == samplers_.end())
    throw std::runtime_error("sequence " + std::to_string(sequence) + " was never opened");
  return found->second;
}

void rank_runtime::run_choosing(const wire::step_message& head, std::span<float> hidden,
                                wire::step_result& result) {
  const auto vocab = static_cast<std::size_t>(executor_->config().vocab);
  const auto rows = static_cast<std::size_t>(head.work.logit_rows());
  std::vector<compute::row_choice> choices(rows); // rows that nobody samples from: the likeliest
  std::vector<std::int32_t> tokens(rows);
  std::size_t row = 0;
  bool on_host = false;
  for (const auto& entry : head.work.entries) {
    if (entry.logits == 0)
      continue;
    row += static_cast<std::size_t>(entry.logits);
    if (refused_.contains(entry.sequence))
      continue;
    if (const auto choice = sampler_of(entry.sequence).choice())
      choices[row - 1] = *choice;
    else
      on_host = choices[row - 1].on_host = true;
  }
  if (on_host)
    logits_.resize(std::max(logits_.size(), rows * vocab));
  const std::span<float> logits =
      on_host ? std::span<float>(logits_).first(rows * vocab) : std::span<float>();
  executor_->run_choosing(head.work, head.ids, hidden, choices, tokens, logits, group_);
  row = 0;
  for (const auto& entry : head.work.entries) {
    if (entry.logits == 0)
      continue;
    row += static_cast<std::size_t>(entry.logits);
    if (refuse(entry.sequence, result))
      continue;
    auto& sampler = sampler_of(entry.sequence);
    wire::sampled out;
    out.sequence = entry.sequence;
    out.index = sampler.generated();
    out.token = choices[row - 1].on_host ? sampler.next(logits.subspan((row - 1) * vocab, vocab))
                                         : sampler.take(tokens[row - 1]);
    result.tokens.push_back(std::move(out));
  }
}

} // namespace hexgen::actors
