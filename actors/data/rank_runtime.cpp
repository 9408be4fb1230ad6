#include "actors/data/rank_runtime.hpp"

#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <cstring>

namespace hexgen::actors {

using std::chrono::steady_clock;

namespace {

/// How often a rank that waits for its device and for the next step looks at the device. A step
/// takes milliseconds, and while another one is begun nothing waits for this one's end.
constexpr auto look_again = std::chrono::microseconds(20);
// About what the wake-ups cost that looking for the next step for so long may save.
constexpr std::chrono::microseconds step_patience{20};

/// The place of each of the step's positions in a pool of blocks, in order.
template <class F>
void for_each_slot(const wire::step_message& head, F what) {
  for (const auto& e : head.work.entries)
    for (std::int32_t p = e.position; p < e.position + e.tokens; ++p)
      what(std::size_t{e.blocks[static_cast<std::size_t>(p / compute::block_tokens)]} *
               compute::block_tokens +
           static_cast<std::size_t>(p % compute::block_tokens));
}

/// A GPU works while the thread waits. A processor's work is the thread's own, and to hold the
/// device back for other processes' turns as well would make it slower the more they do.
speed_limiter::clock counted_by(const compute::executor& device) {
  return device.chooses_tokens() ? speed_limiter::clock::wall : speed_limiter::clock::thread;
}

} // namespace

rank_runtime::rank_runtime(rank_spec spec, double speed, data_plane& out, compute_slot& slot,
                           std::shared_ptr<const compute::tokenizer> tokens, kept_rank from,
                           rank_signals signals)
    : spec_(std::move(spec)), out_(out), slot_(slot), tokens_(std::move(tokens)),
      executor_(std::move(from.executor)), kv_blocks_(from.kv_blocks),
      hidden_(std::move(from.hidden)), signals_(std::move(signals)),
      limiter_(speed, counted_by(*executor_)),
      group_({spec_.replica, spec_.generation, spec_.stage, spec_.part.rank, spec_.rank_nodes}, out,
             mail_, slot_, limiter_),
      chooses_(last() && leader() && spec_.rank_nodes.size() == 1 && executor_->chooses_tokens()),
      overlaps_(chooses_ && spec_.stage == 0 && speed >= 1) {
  const auto memory = executor_->memory();
  memory_bytes_ = memory.weight_bytes + memory.activation_bytes + kv_blocks_ * kv_block_bytes();
}

std::uint64_t rank_runtime::kv_block_bytes() const {
  return kv_block_bytes(spec_, executor_->memory(), executor_->config());
}

std::uint64_t rank_runtime::kv_block_bytes(const rank_spec& spec,
                                           const compute::executor_memory& memory,
                                           const compute::model_config& config) {
  return memory.kv_block_bytes + (spec.keeps_hidden() ? sizeof(float) * compute::block_tokens *
                                                            static_cast<std::size_t>(config.hidden)
                                                      : 0);
}

rank_runtime::~rank_runtime() {
  close();
}

void rank_runtime::close() {
  abort("released");
  if (thread_.joinable())
    thread_.join();
}

void rank_runtime::start(const kv_start& with) {
  start_ = with;
  // A pool that is there serves on, be its blocks of use or not.
  if (kv_blocks_ < with.kv_blocks) {
    executor_->allocate_kv(with.kv_blocks);
    executor_->warm_up();
  }
  const std::lock_guard guard(mutex_);
  memory_bytes_ -= kv_blocks_ * kv_block_bytes();
  kv_blocks_ = std::max(kv_blocks_, with.kv_blocks);
  if (spec_.keeps_hidden())
    hidden_.resize(std::size_t{kv_blocks_} * compute::block_tokens *
                   static_cast<std::size_t>(executor_->config().hidden));
  memory_bytes_ += kv_blocks_ * kv_block_bytes();
  started_ = true;
  thread_ = std::thread([this] {
    loop();
    const std::lock_guard ending(mutex_);
    ended_ = true;
    running_since_ = {};
  });
}

kept_rank rank_runtime::leave() {
  kept_rank out{spec_, std::move(executor_), kv_blocks_, {}, known_.last_step(),
                {},    std::move(hidden_)};
  if (last() && leader())
    out.known = known_.all();
  out.late = known_.written_in_last(spec_.stages + 1);
  return out;
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
  try {
    for (;;) {
      auto w = next_work();
      if (w)
        run_step(std::move(*w));
      else if (begun_.empty())
        return;
      if (!begun_.empty() && executor_->chosen())
        end_step();
    }
  } catch (const compute::device_lost& e) {
    fail(e.what());
    if (signals_.lost)
      signals_.lost(e.what());
  } catch (const std::exception& e) {
    fail(e.what());
  }
}

/// The next step, waiting for it as long as the device has nothing to do. Nothing while it has, or
/// when the rank is to end, which drops what was begun.
std::optional<rank_runtime::work> rank_runtime::next_work() {
  if (begun_.empty())
    out_.attend(
        [&] {
          const std::lock_guard guard(mutex_);
          return closing_ || !queue_.empty();
        },
        step_patience);
  std::unique_lock guard(mutex_);
  const auto ready = [&] { return closing_ || (!queue_.empty() && may_begin()); };
  if (begun_.empty()) {
    note_running(nullptr);
    wake_.wait(guard, ready);
  } else {
    wake_.wait_for(guard, look_again, ready);
  }
  if (closing_)
    begun_.clear();
  if (closing_ || !ready())
    return std::nullopt;
  work w = std::move(queue_.front());
  queue_.pop_front();
  if (begun_.empty())
    note_running(&w.head.work);
  return w;
}

/// What ran until now is over, and `next` runs (null: nothing). Under the lock.
void rank_runtime::note_running(const compute::step* next) {
  const auto now = steady_clock::now();
  if (running_since_ != steady_clock::time_point{}) {
    done_tokens_ += running_tokens_;
    done_us_ += static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(now - running_since_).count());
  }
  running_since_ = next == nullptr ? steady_clock::time_point{} : now;
  running_tokens_ = next == nullptr ? 0 : static_cast<std::uint64_t>(next->tokens());
}

bool rank_runtime::may_begin() const {
  return begun_.empty() || (begun_.size() < 2 && !begun_.back().on_host);
}

void rank_runtime::open_sequences(const wire::step_message& head) {
  for (const auto& open : head.opens) {
    open_sequence s;
    try {
      s.sampler.emplace(open.params, open.prompt, open.emitted, tokens_);
    } catch (const std::invalid_argument& e) {
      // The gateway checks what it takes; a router of another build may not.
      s.refusal.sequence = open.sequence;
      s.refusal.index = static_cast<int>(open.emitted.size());
      s.refusal.token.ends = true;
      s.refusal.error = e.what();
    }
    sequences_.insert_or_assign(open.sequence, std::move(s));
    if (spec_.stage_recovery)
      known_.open(open);
  }
}

void rank_runtime::run_step(work w) {
  auto& head = w.head;
  if (head.step != last_taken_ + 1)
    throw std::runtime_error("step " + std::to_string(head.step) + " came after step " +
                             std::to_string(last_taken_));
  last_taken_ = head.step;
  if (spec_.stage_recovery)
    known_.begins(head);
  const auto width = static_cast<std::size_t>(executor_->config().hidden);
  const auto tokens = static_cast<std::size_t>(head.work.tokens());
  const bool first = spec_.stage == 0;
  if (first && leader() && head.ids.size() != tokens)
    throw std::runtime_error("step " + std::to_string(head.step) + " has no token ids");
  if (overlaps_) {
    w.frame.reset();
    begin_step(std::move(head));
    return;
  }
  auto hidden = std::make_shared<std::vector<float>>(computes(head) ? tokens * width : 0);
  if (!first && computes(head)) {
    const auto bytes = w.frame->payload.bytes();
    if (bytes.size() != hidden->size() * sizeof(float))
      throw std::runtime_error("activations of step " + std::to_string(head.step) + " are " +
                               std::to_string(bytes.size()) + " bytes, expected " +
                               std::to_string(hidden->size() * sizeof(float)));
    std::memcpy(hidden->data(), bytes.data(), bytes.size());
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
      copy.drafts = head.drafts;
      copy.refill = head.refill;
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
}

void rank_runtime::forward(wire::step_message& head,
                           const std::shared_ptr<std::vector<float>>& hidden) {
  const auto rows = static_cast<std::size_t>(head.work.logit_rows());
  const bool samples = last() && leader();
  if (samples)
    open_sequences(head);
  if (leader() && spec_.stage == 0 && !head.refill)
    fill_ids(head);
  wire::step_result result;
  double compute_us = 0;
  if (computes(head)) {
    const std::lock_guard turn(slot_);
    group_.begin_step(head.step);
    if (chooses_) {
      const auto choices = choices_of(head);
      std::vector<std::int32_t> tokens(rows);
      const auto logits = logit_room(rows);
      executor_->begin_choosing(head.work, head.ids, *hidden, choices, group_);
      executor_->end_choosing(tokens, logits);
      sample(head, choices, tokens, logits, result);
    } else {
      const auto logits = samples ? logit_room(rows) : std::span<float>();
      executor_->run(head.work, head.ids, *hidden, logits, group_);
      if (samples)
        sample(head, {}, {}, logits, result);
    }
    compute_us = group_.end_step();
  }
  mail_.forget_before(head.step);
  if (last() || !leader()) {
    finish(head, std::move(result), compute_us);
    return;
  }
  if (spec_.keeps_hidden() && computes(head))
    keep_hidden(head, *hidden);
  if (!head.refill)
    head.stage_us.push_back(static_cast<std::uint64_t>(compute_us));
  else if (!start_.next_hollow)
    hidden->clear();
  else if (!start_.hollow)
    *hidden = kept_hidden(head);
  head.ids.clear();
  head.stage = spec_.stage + 1;
  head.rank = 0;
  transport::frame f;
  f.traffic_class = transport::traffic::data;
  f.type = proto::STEP;
  f.head = wire::encode(head);
  f.payload = transport::buffer(hidden, std::as_bytes(std::span<const float>(*hidden)));
  if (!out_.send(spec_.next_node, std::move(f)))
    throw std::runtime_error(spec_.next_node.name + " cannot be reached");
  const std::lock_guard guard(mutex_);
  last_step_ = head.step;
}

/// What each position passed on stays beside its KV: by block, for as long as the block holds it.
void rank_runtime::keep_hidden(const wire::step_message& head, const std::vector<float>& hidden) {
  const auto width = static_cast<std::size_t>(executor_->config().hidden);
  const auto block = compute::block_tokens * width;
  for (const auto& [from, to] : head.work.copies)
    std::copy_n(hidden_.begin() + static_cast<std::ptrdiff_t>(from * block), block,
                hidden_.begin() + static_cast<std::ptrdiff_t>(to * block));
  std::size_t row = 0;
  for_each_slot(head, [&](std::size_t slot) {
    std::memcpy(&hidden_.at(slot * width), &hidden[row++ * width], width * sizeof(float));
  });
}

std::vector<float> rank_runtime::kept_hidden(const wire::step_message& head) const {
  const auto width = static_cast<std::size_t>(executor_->config().hidden);
  std::vector<float> out;
  out.reserve(static_cast<std::size_t>(head.work.tokens()) * width);
  for_each_slot(head, [&](std::size_t slot) {
    const auto* from = &hidden_.at(slot * width);
    out.insert(out.end(), from, from + width);
  });
  return out;
}

/// The step is over on this rank: the last stage's leader tells the replica.
void rank_runtime::finish(wire::step_message& head, wire::step_result result, double compute_us) {
  if (spec_.stage_recovery && last() && leader())
    note_known(head, result);
  for (const auto id : head.closes)
    sequences_.erase(id);
  {
    const std::lock_guard guard(mutex_);
    last_step_ = head.step;
  }
  if (!leader())
    return;
  if (!head.refill)
    head.stage_us.push_back(static_cast<std::uint64_t>(compute_us));
  result.replica = head.replica;
  result.generation = head.generation;
  result.step = head.step;
  result.stage_us = head.stage_us;
  transport::frame f;
  f.type = proto::STEP_RESULT;
  f.head = wire::encode(result);
  if (!out_.send(spec_.replica_node, std::move(f)))
    throw std::runtime_error(spec_.replica_node.name + " cannot be reached");
}

void rank_runtime::note_known(const wire::step_message& head, const wire::step_result& result) {
  known_.ran(head);
  for (const auto& t : result.tokens)
    if (t.error.empty())
      known_.sampled(t.sequence, t.token.id);
  for (const auto id : head.closes)
    known_.close(id);
}

void rank_runtime::begin_step(wire::step_message head) {
  open_sequences(head);
  fill_ids(head);
  begun_step b;
  b.choices = choices_of(head);
  b.since = steady_clock::now();
  b.on_host = std::any_of(b.choices.begin(), b.choices.end(),
                          [](const compute::row_choice& c) { return c.on_host; });
  {
    const std::lock_guard turn(slot_);
    executor_->begin_choosing(head.work, head.ids, {}, b.choices, group_);
  }
  std::int32_t row = 0;
  for (const auto& entry : head.work.entries) {
    if (entry.logits == 0)
      continue;
    row += entry.logits;
    auto& s = opened(entry.sequence);
    ++s.pending;
    s.row = row - 1;
  }
  b.head = std::move(head);
  begun_.push_back(std::move(b));
}

void rank_runtime::end_step() {
  begun_step b = std::move(begun_.front());
  begun_.pop_front();
  std::vector<std::int32_t> tokens(b.choices.size());
  const auto logits = b.on_host ? logit_room(b.choices.size()) : std::span<float>();
  executor_->end_choosing(tokens, logits);
  wire::step_result result;
  sample(b.head, b.choices, tokens, logits, result);
  const auto now = steady_clock::now();
  const double us = std::chrono::duration<double, std::micro>(now - std::max(b.since, last_end_))
                        .count(); // behind another step it only waited before
  last_end_ = now;
  finish(b.head, std::move(result), us);
  const std::lock_guard guard(mutex_);
  note_running(begun_.empty() ? nullptr : &begun_.front().head.work);
}

/// What each row's token is chosen by, where that takes nothing but the logits. Rows that nobody
/// samples from (a sequence that ended) get the likeliest.
std::vector<compute::row_choice> rank_runtime::choices_of(const wire::step_message& head) {
  std::vector<compute::row_choice> choices(static_cast<std::size_t>(head.work.logit_rows()));
  std::size_t row = 0;
  for (const auto& entry : head.work.entries) {
    if (entry.logits == 0)
      continue;
    const auto of_it = std::span(choices).subspan(row, static_cast<std::size_t>(entry.logits));
    row += of_it.size();
    const auto& s = opened(entry.sequence);
    if (s.ended || !s.sampler)
      continue;
    // What a row beside drafts is chosen by depends on those before it.
    const auto choice = s.sampler->choice(s.pending);
    if (choice && of_it.size() == 1)
      of_it[0] = *choice;
    else
      for (auto& c : of_it)
        c.on_host = true;
  }
  return choices;
}

/// Puts tokens, or the rows that choose them, where the replica did not know them yet.
void rank_runtime::fill_ids(wire::step_message& head) {
  std::size_t at = 0;
  for (const auto& entry : head.work.entries) {
    at += static_cast<std::size_t>(entry.tokens);
    auto& id = head.ids[at - 1];
    if (id != compute::unknown_token)
      continue;
    const auto& s = opened(entry.sequence);
    if (s.pending == 0 && s.last < 0)
      throw std::runtime_error("step " + std::to_string(head.step) +
                               " goes on from a token that was never chosen");
    id = s.pending > 0 ? -1 - s.row : s.last;
  }
}

std::span<float> rank_runtime::logit_room(std::size_t rows) {
  const auto values = rows * static_cast<std::size_t>(executor_->config().vocab);
  logits_.resize(std::max(logits_.size(), values));
  return std::span(logits_).first(values);
}

void rank_runtime::sample(const wire::step_message& head,
                          std::span<const compute::row_choice> choices,
                          std::span<const std::int32_t> tokens, std::span<float> logits,
                          wire::step_result& result) {
  const auto vocab = static_cast<std::size_t>(executor_->config().vocab);
  std::size_t next_row = 0;
  auto draft = head.drafts.begin();
  for (const auto& entry : head.work.entries) {
    if (entry.logits == 0)
      continue;
    auto row = next_row;
    next_row += static_cast<std::size_t>(entry.logits);
    const auto last_draft = draft + (entry.logits - 1);
    auto& s = opened(entry.sequence);
    s.pending = std::max(0, s.pending - 1);
    // One that ended before this step was formed gets none. Else a token from each row, as long as
    // each is the draft that the next row was computed from.
    for (bool goes_on = !s.ended; goes_on; ++row) {
      wire::sampled out = s.refusal;
      if (s.sampler) {
        out.sequence = entry.sequence;
        out.index = s.sampler->generated();
        out.token = choices.empty() || choices[row].on_host
                        ? s.sampler->next(logits.subspan(row * vocab, vocab))
                        : s.sampler->take(tokens[row]);
      }
      s.last = out.token.id;
      s.ended = out.token.ends;
      goes_on = !s.ended && draft != last_draft && out.token.id == *draft++;
      result.tokens.push_back(std::move(out));
    }
    draft = last_draft;
  }
}

rank_runtime::open_sequence& rank_runtime::opened(std::uint64_t sequence) {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end())
    throw std::runtime_error("sequence " + std::to_string(sequence) + " was never opened");
  return found->second;
}

} // namespace hexgen::actors
