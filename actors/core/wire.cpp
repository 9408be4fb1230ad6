#include "actors/core/wire.hpp"

#include "actors/core/served_model.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#if __has_include(<google/protobuf/stubs/logging.h>)
#include <google/protobuf/stubs/logging.h>
#endif

namespace hexgen::actors::wire {
namespace {

/// Checks of one message: every failure names the message and the field.
class checker {
public:
  explicit checker(const char* message) : message_(message) {}

  [[noreturn]] void fail(const std::string& field, const std::string& why) const {
    throw wire_error(std::string(message_) + "." + field + ": " + why);
  }
  void require(bool ok, const std::string& field, const std::string& why) const {
    if (!ok)
      fail(field, why);
  }
  template <class T>
  T within(T value, T low, T high, const char* field) const {
    if (!(value >= low && value <= high)) // NaN fails too
      fail(field, std::to_string(value) + " is outside [" + std::to_string(low) + ", " +
                      std::to_string(high) + "]");
    return value;
  }
  void count(int n, int most, const char* field) const {
    if (n > most)
      fail(field, std::to_string(n) + " elements, at most " + std::to_string(most));
  }
  std::string text(const std::string& s, const char* field) const {
    if (s.size() > static_cast<std::size_t>(limits::text_bytes))
      fail(field, "longer than " + std::to_string(limits::text_bytes) + " bytes");
    return s;
  }
  float finite(float v, const char* field) const {
    if (!std::isfinite(v))
      fail(field, "not a finite number");
    return v;
  }
  template <class Repeated>
  std::vector<compute::token_id> ids(const Repeated& from, int most, int vocab, const char* field,
                                     compute::token_id least = 0) const {
    count(from.size(), most, field);
    for (const auto id : from)
      if (id < least || (vocab > 0 && id >= vocab))
        fail(field, "token id " + std::to_string(id) + " is not in the vocabulary");
    return {from.begin(), from.end()};
  }

private:
  const char* message_;
};

/// Protobuf prints what it cannot parse; a peer must not be able to fill our log. Failures are
/// reported by wire_error instead.
void silence_protobuf() {
#if __has_include(<google/protobuf/stubs/logging.h>)
  [[maybe_unused]] static const auto before = google::protobuf::SetLogHandler(nullptr);
#endif
}

template <class Message>
Message parse(std::string_view head, const checker& c) {
  silence_protobuf();
  Message m;
  if (head.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()) ||
      !m.ParseFromArray(head.data(), static_cast<int>(head.size())))
    c.fail("*", "not a well-formed message");
  return m;
}

void put(proto::sampling& to, const compute::sampling_params& p) {
  to.set_temperature(p.temperature);
  to.set_top_p(p.top_p);
  to.set_min_p(p.min_p);
  to.set_top_k(p.top_k);
  to.set_repetition_penalty(p.repetition_penalty);
  to.set_presence_penalty(p.presence_penalty);
  to.set_frequency_penalty(p.frequency_penalty);
  to.set_seed(p.seed);
  to.set_choice(p.choice);
  to.set_max_tokens(p.max_tokens);
  to.set_min_tokens(p.min_tokens);
  to.set_ignore_eos(p.ignore_eos);
  to.set_logprobs(p.logprobs);
  to.mutable_stop_ids()->Add(p.stop_ids.begin(), p.stop_ids.end());
  for (const auto& [id, bias] : p.logit_bias) {
    to.add_bias_ids(id);
    to.add_bias(bias);
  }
  to.set_grammar(p.grammar);
}

compute::sampling_params get(const proto::sampling& from, int vocab, const checker& c) {
  compute::sampling_params p;
  p.temperature = c.within(from.temperature(), 0.0F, 1e6F, "temperature");
  p.top_p = c.within(from.top_p(), 0.0F, 1.0F, "top_p");
  p.min_p = c.within(from.min_p(), 0.0F, 1.0F, "min_p");
  p.top_k = c.within(from.top_k(), 0, std::numeric_limits<std::int32_t>::max(), "top_k");
  p.repetition_penalty = c.within(from.repetition_penalty(), 1e-6F, 1e6F, "repetition_penalty");
  p.presence_penalty = c.within(from.presence_penalty(), -1e6F, 1e6F, "presence_penalty");
  p.frequency_penalty = c.within(from.frequency_penalty(), -1e6F, 1e6F, "frequency_penalty");
  p.seed = from.seed();
  p.choice = from.choice();
  p.max_tokens = c.within(from.max_tokens(), 0, limits::sequence_tokens, "max_tokens");
  p.min_tokens = c.within(from.min_tokens(), 0, limits::sequence_tokens, "min_tokens");
  p.ignore_eos = from.ignore_eos();
  p.logprobs = c.within(from.logprobs(), -1, limits::list, "logprobs");
  p.stop_ids = c.ids(from.stop_ids(), limits::list, vocab, "stop_ids");
  const auto bias = c.ids(from.bias_ids(), limits::list, vocab, "bias_ids");
  c.require(from.bias_size() == from.bias_ids_size(), "bias", "not one for each of bias_ids");
  for (int i = 0; i < from.bias_size(); ++i)
    p.logit_bias.emplace_back(bias[static_cast<std::size_t>(i)], c.finite(from.bias(i), "bias"));
  p.grammar = c.text(from.grammar(), "grammar");
  return p;
}

void put(proto::sampled& to, const sampled& s) {
  to.set_sequence(s.sequence);
  to.set_index(s.index);
  to.set_id(s.token.id);
  to.set_logprob(s.token.logprob);
  for (const auto& t : s.token.top) {
    auto* top = to.add_top();
    top->set_id(t.id);
    top->set_logprob(t.logprob);
  }
  to.set_ends(s.token.ends);
  to.set_by_length(s.token.ends_by_length);
  to.set_error(s.error);
}

sampled get(const proto::sampled& from, const checker& c) {
  sampled s;
  s.sequence = from.sequence();
  s.index = c.within(from.index(), 0, limits::sequence_tokens, "index");
  s.token.id = c.within(from.id(), 0, std::numeric_limits<std::int32_t>::max(), "id");
  s.token.logprob = from.logprob();
  c.count(from.top_size(), limits::list, "top");
  for (const auto& t : from.top())
    s.token.top.push_back({t.id(), t.logprob()});
  s.token.ends = from.ends();
  s.token.ends_by_length = from.by_length();
  s.error = from.error();
  return s;
}

compute::step_entry get(const proto::step_entry& from, std::uint32_t blocks, const checker& c) {
  compute::step_entry e;
  e.sequence = from.sequence();
  e.position = c.within(from.position(), 0, limits::sequence_tokens, "entries.position");
  e.tokens = c.within(from.tokens(), 1, limits::step_tokens, "entries.tokens");
  e.logits = c.within(from.logits(), 0, e.tokens, "entries.logits");
  const int needed = (e.position + e.tokens + compute::block_tokens - 1) / compute::block_tokens;
  c.require(from.blocks_size() >= needed, "entries.blocks",
            "the table does not cover the run's positions");
  for (const auto b : from.blocks())
    c.require(blocks == 0 || b < blocks, "entries.blocks", "no such block: " + std::to_string(b));
  e.blocks.assign(from.blocks().begin(), from.blocks().end());
  return e;
}

} // namespace

std::string encode(const step_message& m) {
  proto::step_message out;
  out.set_replica(m.replica);
  out.set_generation(m.generation);
  out.set_step(m.step);
  for (const auto& e : m.work.entries) {
    auto* to = out.add_entries();
    to->set_sequence(e.sequence);
    to->set_position(e.position);
    to->set_tokens(e.tokens);
    to->set_logits(e.logits);
    to->mutable_blocks()->Add(e.blocks.begin(), e.blocks.end());
  }
  out.mutable_ids()->Add(m.ids.begin(), m.ids.end());
  for (const auto& [from, to] : m.work.copies) {
    out.add_copy_from(from);
    out.add_copy_to(to);
  }
  for (const auto& o : m.opens) {
    auto* to = out.add_opens();
    to->set_sequence(o.sequence);
    put(*to->mutable_parameters(), o.params);
    to->mutable_prompt()->Add(o.prompt.begin(), o.prompt.end());
    to->mutable_emitted()->Add(o.emitted.begin(), o.emitted.end());
  }
  out.mutable_closes()->Add(m.closes.begin(), m.closes.end());
  out.mutable_stage_us()->Add(m.stage_us.begin(), m.stage_us.end());
  out.set_stage(m.stage);
  out.set_rank(m.rank);
  out.mutable_drafts()->Add(m.drafts.begin(), m.drafts.end());
  out.set_refill(m.refill);
  return out.SerializeAsString();
}

step_message decode_step(std::string_view head, const step_bounds& bounds) {
  const checker c("step_message");
  const auto in = parse<proto::step_message>(head, c);
  step_message m;
  m.replica = in.replica();
  m.generation = in.generation();
  m.step = in.step();
  m.stage = in.stage();
  m.rank = in.rank();
  c.require(m.step >= 1, "step", "0");
  c.count(in.entries_size(), limits::step_entries, "entries");
  std::unordered_set<std::uint64_t> seen;
  std::int64_t tokens = 0, block_ids = 0, drafts = 0;
  for (const auto& e : in.entries()) {
    m.work.entries.push_back(get(e, bounds.blocks, c));
    c.require(seen.insert(e.sequence()).second, "entries.sequence", "twice in one step");
    tokens += e.tokens();
    block_ids += e.blocks_size();
    drafts += std::max(e.logits() - 1, 0);
  }
  c.within<std::int64_t>(tokens, 0, limits::step_tokens, "entries.tokens");
  c.within<std::int64_t>(block_ids, 0, limits::step_block_ids, "entries.blocks");
  m.ids = c.ids(in.ids(), limits::step_tokens, bounds.vocab, "ids", compute::unknown_token);
  c.require(m.ids.empty() || static_cast<std::int64_t>(m.ids.size()) == tokens, "ids",
            "not one for each token");
  m.drafts = c.ids(in.drafts(), limits::step_tokens, bounds.vocab, "drafts");
  c.require(static_cast<std::int64_t>(m.drafts.size()) == drafts, "drafts",
            "not one for each logit row after the first");
  m.refill = in.refill();
  c.require(!m.refill || (m.work.logit_rows() == 0 && in.copy_to_size() == 0), "refill",
            "with logits or copies");
  c.count(in.copy_from_size(), limits::step_entries, "copy_from");
  c.require(in.copy_from_size() == in.copy_to_size(), "copy_to", "not one for each of copy_from");
  for (int i = 0; i < in.copy_from_size(); ++i) {
    c.require(bounds.blocks == 0 ||
                  (in.copy_from(i) < bounds.blocks && in.copy_to(i) < bounds.blocks),
              "copy_from", "no such block");
    m.work.copies.emplace_back(in.copy_from(i), in.copy_to(i));
  }
  c.count(in.opens_size(), limits::step_entries, "opens");
  for (const auto& o : in.opens()) {
    sequence_open open;
    open.sequence = o.sequence();
    open.params = get(o.parameters(), bounds.vocab, c);
    open.prompt = c.ids(o.prompt(), limits::sequence_tokens, bounds.vocab, "opens.prompt");
    open.emitted = c.ids(o.emitted(), limits::sequence_tokens, bounds.vocab, "opens.emitted");
    m.opens.push_back(std::move(open));
  }
  c.count(in.closes_size(), limits::step_block_ids, "closes");
  m.closes.assign(in.closes().begin(), in.closes().end());
  c.count(in.stage_us_size(), limits::list, "stage_us");
  m.stage_us.assign(in.stage_us().begin(), in.stage_us().end());
  return m;
}

std::string encode(const step_result& m) {
  proto::step_result out;
  out.set_replica(m.replica);
  out.set_generation(m.generation);
  out.set_step(m.step);
  for (const auto& t : m.tokens)
    put(*out.add_tokens(), t);
  out.mutable_stage_us()->Add(m.stage_us.begin(), m.stage_us.end());
  out.set_error(m.error);
  return out.SerializeAsString();
}

step_result decode_step_result(std::string_view head) {
  const checker c("step_result");
  const auto in = parse<proto::step_result>(head, c);
  step_result m;
  m.replica = in.replica();
  m.generation = in.generation();
  m.step = in.step();
  c.count(in.tokens_size(), limits::step_tokens, "tokens");
  for (const auto& t : in.tokens())
    m.tokens.push_back(get(t, c));
  c.count(in.stage_us_size(), limits::list, "stage_us");
  m.stage_us.assign(in.stage_us().begin(), in.stage_us().end());
  m.error = c.text(in.error(), "error");
  return m;
}

std::string encode(const collective_head& m) {
  proto::collective_message out;
  out.set_replica(m.replica);
  out.set_generation(m.generation);
  out.set_step(m.step);
  out.set_index(m.index);
  out.set_rank(m.rank);
  out.set_stage(m.stage);
  out.set_to_rank(m.to_rank);
  return out.SerializeAsString();
}

collective_head decode_collective(std::string_view head) {
  const checker c("collective_message");
  const auto in = parse<proto::collective_message>(head, c);
  return {in.replica(), in.generation(), in.step(),   in.index(),
          in.rank(),    in.stage(),      in.to_rank()};
}

std::string encode(const submit& m) {
  proto::submit out;
  out.set_request(m.request);
  out.set_attempt(m.attempt);
  out.set_replica(m.replica);
  out.set_generation(m.generation);
  out.mutable_prompt()->Add(m.prompt.begin(), m.prompt.end());
  out.mutable_emitted()->Add(m.emitted.begin(), m.emitted.end());
  put(*out.mutable_parameters(), m.params);
  out.set_priority(m.priority);
  out.set_ttft_deadline_ms(m.ttft_deadline_ms);
  out.set_tpot_deadline_ms(m.tpot_deadline_ms);
  return out.SerializeAsString();
}

submit decode_submit(std::string_view head) {
  const checker c("submit");
  const auto in = parse<proto::submit>(head, c);
  submit m;
  m.request = in.request();
  m.attempt = in.attempt();
  m.replica = in.replica();
  m.generation = in.generation();
  m.prompt = c.ids(in.prompt(), limits::sequence_tokens, 0, "prompt");
  c.require(!m.prompt.empty(), "prompt", "empty");
  m.emitted = c.ids(in.emitted(), limits::sequence_tokens, 0, "emitted");
  m.params = get(in.parameters(), 0, c);
  m.priority = in.priority();
  m.ttft_deadline_ms = c.within(in.ttft_deadline_ms(), 0.0, 1e9, "ttft_deadline_ms");
  m.tpot_deadline_ms = c.within(in.tpot_deadline_ms(), 0.0, 1e9, "tpot_deadline_ms");
  return m;
}

std::string encode(const cancel& m) {
  proto::cancel out;
  out.set_request(m.request);
  out.set_attempt(m.attempt);
  out.set_replica(m.replica);
  out.set_generation(m.generation);
  return out.SerializeAsString();
}

cancel decode_cancel(std::string_view head) {
  const auto in = parse<proto::cancel>(head, checker("cancel"));
  return {in.request(), in.attempt(), in.replica(), in.generation()};
}

std::string encode(std::span<const token_chunk> chunks) {
  proto::token_chunks out;
  for (const auto& m : chunks) {
    auto& to = *out.add_chunks();
    to.set_request(m.request);
    to.set_attempt(m.attempt);
    to.set_index(m.index);
    for (const auto& t : m.tokens)
      put(*to.add_tokens(), t);
    to.set_cached_tokens(m.cached_tokens);
    to.set_queued_us(m.queued_us);
  }
  return out.SerializeAsString();
}

std::vector<token_chunk> decode_token_chunks(std::string_view head) {
  const checker c("token_chunks");
  const auto in = parse<proto::token_chunks>(head, c);
  c.count(in.chunks_size(), limits::step_entries, "chunks");
  std::vector<token_chunk> out;
  out.reserve(static_cast<std::size_t>(in.chunks_size()));
  for (const auto& from : in.chunks()) {
    auto& m = out.emplace_back();
    m.request = from.request();
    m.attempt = from.attempt();
    m.index = c.within(from.index(), 0, limits::sequence_tokens, "index");
    c.count(from.tokens_size(), limits::step_tokens, "tokens");
    for (const auto& t : from.tokens())
      m.tokens.push_back(get(t, c));
    m.cached_tokens = from.cached_tokens();
    m.queued_us = from.queued_us();
  }
  return out;
}

std::string encode(const request_failed& m) {
  proto::request_failed out;
  out.set_request(m.request);
  out.set_attempt(m.attempt);
  out.set_retry(m.retry);
  out.set_status(m.status);
  out.set_message(m.message);
  return out.SerializeAsString();
}

request_failed decode_request_failed(std::string_view head) {
  const checker c("request_failed");
  const auto in = parse<proto::request_failed>(head, c);
  request_failed m;
  m.request = in.request();
  m.attempt = in.attempt();
  m.retry = in.retry();
  m.status = c.within<std::uint32_t>(in.status(), 0, 599, "status");
  m.message = c.text(in.message(), "message");
  return m;
}

std::string encode(const routing_table& m) {
  proto::routing_table out;
  out.set_epoch(m.epoch);
  for (const auto& r : m.routes) {
    auto* to = out.add_routes();
    to->set_replica(r.replica);
    to->set_generation(r.generation);
    to->set_node(r.node);
    to->set_incarnation(r.incarnation);
    to->set_address(r.address);
    to->set_capacity(r.capacity);
    to->set_draining(r.draining);
    to->set_kv_blocks(r.kv_blocks);
  }
  out.set_missing(m.missing);
  write(m.model, *out.mutable_model());
  write(m.settings, *out.mutable_settings());
  out.set_switching(m.switching);
  return out.SerializeAsString();
}

routing_table decode_routing_table(std::string_view head) {
  const checker c("routing_table");
  const auto in = parse<proto::routing_table>(head, c);
  routing_table m;
  m.epoch = in.epoch();
  c.count(in.routes_size(), limits::list, "routes");
  for (const auto& r : in.routes())
    m.routes.push_back({r.replica(), r.generation(), c.text(r.node(), "routes.node"),
                        r.incarnation(), c.text(r.address(), "routes.address"),
                        c.within(r.capacity(), 0.0, 1e15, "routes.capacity"), r.draining(),
                        r.kv_blocks()});
  m.missing = c.text(in.missing(), "missing");
  m.model = read(in.model());
  (void)c.text(m.model.name, "model.name");
  (void)c.text(m.model.source, "model.source");
  (void)c.text(m.model.digest, "model.digest");
  m.settings = read(in.settings());
  const auto& s = m.settings;
  (void)c.text(s.kernels, "settings.kernels");
  (void)c.text(s.kv_type, "settings.kv_type");
  (void)c.within<std::uint32_t>(s.max_sequence, 0, limits::sequence_tokens,
                                "settings.max_sequence");
  (void)c.within<std::uint32_t>(s.max_step_tokens, 0, limits::step_tokens,
                                "settings.max_step_tokens");
  (void)c.within<std::uint32_t>(s.max_running, 0, limits::step_tokens, "settings.max_running");
  (void)c.within<std::uint32_t>(s.max_queued, 0, limits::queue, "settings.max_queued");
  (void)c.within<std::uint32_t>(s.draft_tokens, 0, limits::drafts, "settings.draft_tokens");
  m.switching = in.switching();
  return m;
}

std::string encode(const replica_status& m) {
  proto::replica_status out;
  out.set_replica(m.replica);
  out.set_generation(m.generation);
  out.set_running(m.running);
  out.set_waiting(m.waiting);
  out.set_free_blocks(m.free_blocks);
  out.set_blocks(m.blocks);
  out.set_tokens_per_s(m.tokens_per_s);
  out.mutable_stage_us()->Add(m.stage_us.begin(), m.stage_us.end());
  out.set_steps(m.steps);
  out.set_preemptions(m.preemptions);
  out.set_prefix_queries(m.prefix_queries);
  out.set_prefix_hits(m.prefix_hits);
  out.set_prompt_tokens(m.prompt_tokens);
  out.set_generated_tokens(m.generated_tokens);
  out.set_step_tokens(m.step_tokens);
  out.set_draft_tokens(m.draft_tokens);
  out.set_accepted_tokens(m.accepted_tokens);
  out.set_resumed(m.resumed);
  out.mutable_step_sizes()->Add(m.step_sizes.begin(), m.step_sizes.end());
  return out.SerializeAsString();
}

replica_status decode_replica_status(std::string_view head) {
  const checker c("replica_status");
  const auto in = parse<proto::replica_status>(head, c);
  c.count(in.stage_us_size(), limits::list, "stage_us");
  replica_status m;
  m.replica = in.replica();
  m.generation = in.generation();
  m.running = in.running();
  m.waiting = in.waiting();
  m.free_blocks = in.free_blocks();
  m.blocks = in.blocks();
  m.tokens_per_s = c.within(in.tokens_per_s(), 0.0, 1e15, "tokens_per_s");
  m.stage_us.assign(in.stage_us().begin(), in.stage_us().end());
  m.steps = in.steps();
  m.preemptions = in.preemptions();
  m.prefix_queries = in.prefix_queries();
  m.prefix_hits = in.prefix_hits();
  m.prompt_tokens = in.prompt_tokens();
  m.generated_tokens = in.generated_tokens();
  m.step_tokens = in.step_tokens();
  m.draft_tokens = in.draft_tokens();
  m.accepted_tokens = in.accepted_tokens();
  m.resumed = in.resumed();
  c.count(in.step_sizes_size(), limits::list, "step_sizes");
  m.step_sizes.assign(in.step_sizes().begin(), in.step_sizes().end());
  return m;
}

} // namespace hexgen::actors::wire
