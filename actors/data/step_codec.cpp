#include "actors/data/step_codec.hpp"

#include "transport/proto/hexgen.pb.h"

#include <cmath>

namespace hexgen::actors {
namespace {

bool fail(std::string& why, const char* field) {
  why = std::string("field out of range: ") + field;
  return false;
}

bool decode_sampling(const proto::sampling& in, compute::sampling_params& out, std::string& why) {
  for (const float value : {in.temperature(), in.top_p(), in.min_p(), in.repetition_penalty(),
                            in.presence_penalty(), in.frequency_penalty()})
    if (!std::isfinite(value))
      return fail(why, "sampling");
  if (in.bias_ids_size() != in.bias_size() || in.bias_size() > 4096)
    return fail(why, "sampling.bias");
  if (in.stop_ids_size() > 4096)
    return fail(why, "sampling.stop_ids");
  if (in.logprobs() < -1 || in.logprobs() > 100)
    return fail(why, "sampling.logprobs");
  if (in.max_tokens() < 1 || in.max_tokens() > step_limits::position)
    return fail(why, "sampling.max_tokens");
  if (in.min_tokens() < 0 || in.top_k() < 0)
    return fail(why, "sampling.top_k");
  out.temperature = in.temperature();
  out.top_p = in.top_p();
  out.min_p = in.min_p();
  out.top_k = in.top_k();
  out.repetition_penalty = in.repetition_penalty();
  out.presence_penalty = in.presence_penalty();
  out.frequency_penalty = in.frequency_penalty();
  out.seed = in.seed();
  out.choice = in.choice();
  out.max_tokens = in.max_tokens();
  out.min_tokens = in.min_tokens();
  out.ignore_eos = in.ignore_eos();
  out.logprobs = in.logprobs();
  out.stop_ids.assign(in.stop_ids().begin(), in.stop_ids().end());
  for (int i = 0; i < in.bias_size(); ++i) {
    if (!std::isfinite(in.bias(i)))
      return fail(why, "sampling.bias");
    out.logit_bias.emplace_back(in.bias_ids(i), in.bias(i));
  }
  out.grammar = in.grammar();
  return true;
}

void encode_sampling(const compute::sampling_params& in, proto::sampling& out) {
  out.set_temperature(in.temperature);
  out.set_top_p(in.top_p);
  out.set_min_p(in.min_p);
  out.set_top_k(in.top_k);
  out.set_repetition_penalty(in.repetition_penalty);
  out.set_presence_penalty(in.presence_penalty);
  out.set_frequency_penalty(in.frequency_penalty);
  out.set_seed(in.seed);
  out.set_choice(in.choice);
  out.set_max_tokens(in.max_tokens);
  out.set_min_tokens(in.min_tokens);
  out.set_ignore_eos(in.ignore_eos);
  out.set_logprobs(in.logprobs);
  for (const auto id : in.stop_ids)
    out.add_stop_ids(id);
  for (const auto& [id, bias] : in.logit_bias) {
    out.add_bias_ids(id);
    out.add_bias(bias);
  }
  out.set_grammar(in.grammar);
}

bool decode_entry(const proto::step_entry& in, compute::step_entry& out, std::string& why) {
  if (in.position() < 0 || in.position() > step_limits::position)
    return fail(why, "entries.position");
  if (in.tokens() < 1 || in.tokens() > step_limits::tokens)
    return fail(why, "entries.tokens");
  if (in.logits() < 0 || in.logits() > in.tokens())
    return fail(why, "entries.logits");
  const auto last = static_cast<std::int64_t>(in.position()) + in.tokens();
  if (static_cast<std::int64_t>(in.blocks_size()) * compute::block_tokens < last)
    return fail(why, "entries.blocks");
  out.sequence = in.sequence();
  out.position = in.position();
  out.tokens = in.tokens();
  out.logits = in.logits();
  out.blocks.assign(in.blocks().begin(), in.blocks().end());
  return true;
}

} // namespace

std::optional<step_head> decode_step(const std::string& head, std::string& why) {
  proto::step_message in;
  if (!in.ParseFromString(head)) {
    why = "not a step message";
    return std::nullopt;
  }
  step_head out;
  out.replica = in.replica();
  out.generation = in.generation();
  out.number = in.step();
  out.stage = in.stage();
  out.rank = in.rank();
  if (out.stage >= step_limits::stages || out.rank >= step_limits::ranks ||
      in.entries_size() > step_limits::entries || in.copy_from_size() != in.copy_to_size() ||
      in.stage_us_size() > step_limits::stages || in.opens_size() > step_limits::entries) {
    fail(why, "step");
    return std::nullopt;
  }
  std::int64_t tokens = 0;
  out.step.entries.resize(static_cast<std::size_t>(in.entries_size()));
  for (int i = 0; i < in.entries_size(); ++i) {
    auto& entry = out.step.entries[static_cast<std::size_t>(i)];
    if (!decode_entry(in.entries(i), entry, why))
      return std::nullopt;
    tokens += entry.tokens;
  }
  if (tokens > step_limits::tokens || (in.ids_size() != 0 && in.ids_size() != tokens)) {
    fail(why, "ids");
    return std::nullopt;
  }
  out.ids.assign(in.ids().begin(), in.ids().end());
  for (int i = 0; i < in.copy_from_size(); ++i)
    out.step.copies.emplace_back(in.copy_from(i), in.copy_to(i));
  for (const auto& open : in.opens()) {
    if (open.prompt_size() < 1 || open.prompt_size() > step_limits::sequence_tokens ||
        open.emitted_size() > step_limits::sequence_tokens) {
      fail(why, "opens");
      return std::nullopt;
    }
    sequence_open o;
    o.sequence = open.sequence();
    if (!decode_sampling(open.parameters(), o.params, why))
      return std::nullopt;
    o.prompt.assign(open.prompt().begin(), open.prompt().end());
    o.emitted.assign(open.emitted().begin(), open.emitted().end());
    out.opens.push_back(std::move(o));
  }
  out.closes.assign(in.closes().begin(), in.closes().end());
  out.stage_us.assign(in.stage_us().begin(), in.stage_us().end());
  return out;
}

std::string encode(const step_head& head) {
  proto::step_message out;
  out.set_replica(head.replica);
  out.set_generation(head.generation);
  out.set_step(head.number);
  out.set_stage(head.stage);
  out.set_rank(head.rank);
  for (const auto& entry : head.step.entries) {
    auto* e = out.add_entries();
    e->set_sequence(entry.sequence);
    e->set_position(entry.position);
    e->set_tokens(entry.tokens);
    e->set_logits(entry.logits);
    e->mutable_blocks()->Add(entry.blocks.begin(), entry.blocks.end());
  }
  out.mutable_ids()->Add(head.ids.begin(), head.ids.end());
  for (const auto& [from, to] : head.step.copies) {
    out.add_copy_from(from);
    out.add_copy_to(to);
  }
  for (const auto& open : head.opens) {
    auto* o = out.add_opens();
    o->set_sequence(open.sequence);
    encode_sampling(open.params, *o->mutable_parameters());
    o->mutable_prompt()->Add(open.prompt.begin(), open.prompt.end());
    o->mutable_emitted()->Add(open.emitted.begin(), open.emitted.end());
  }
  out.mutable_closes()->Add(head.closes.begin(), head.closes.end());
  out.mutable_stage_us()->Add(head.stage_us.begin(), head.stage_us.end());
  return out.SerializeAsString();
}

std::optional<collective_head> decode_collective(const std::string& head, std::string& why) {
  proto::collective_message in;
  if (!in.ParseFromString(head)) {
    why = "not a collective message";
    return std::nullopt;
  }
  if (in.rank() >= step_limits::ranks || in.to_rank() >= step_limits::ranks ||
      in.stage() >= step_limits::stages) {
    fail(why, "rank");
    return std::nullopt;
  }
  return collective_head{in.replica(), in.generation(), in.step(), in.index(),
                         in.rank(),    in.to_rank(),    in.stage()};
}

std::string encode(const collective_head& head) {
  proto::collective_message out;
  out.set_replica(head.replica);
  out.set_generation(head.generation);
  out.set_step(head.number);
  out.set_index(head.index);
  out.set_rank(head.rank);
  out.set_to_rank(head.to_rank);
  out.set_stage(head.stage);
  return out.SerializeAsString();
}

std::optional<step_result> decode_step_result(const std::string& head, std::string& why) {
  proto::step_result in;
  if (!in.ParseFromString(head)) {
    why = "not a step result";
    return std::nullopt;
  }
  if (in.tokens_size() > step_limits::tokens || in.stage_us_size() > step_limits::stages) {
    fail(why, "tokens");
    return std::nullopt;
  }
  step_result out;
  out.replica = in.replica();
  out.generation = in.generation();
  out.number = in.step();
  out.error = in.error();
  for (const auto& t : in.tokens()) {
    if (t.index() < 0 || t.index() > step_limits::position || t.id() < 0) {
      fail(why, "tokens.index");
      return std::nullopt;
    }
    sampled_row row;
    row.sequence = t.sequence();
    row.index = t.index();
    row.token.id = t.id();
    row.token.logprob = t.logprob();
    row.token.ends = t.ends();
    row.token.ends_by_length = t.by_length();
    for (const auto& top : t.top())
      row.token.top.push_back({top.id(), top.logprob()});
    out.tokens.push_back(std::move(row));
  }
  out.stage_us.assign(in.stage_us().begin(), in.stage_us().end());
  return out;
}

std::string encode(const step_result& result) {
  proto::step_result out;
  out.set_replica(result.replica);
  out.set_generation(result.generation);
  out.set_step(result.number);
  out.set_error(result.error);
  for (const auto& row : result.tokens) {
    auto* t = out.add_tokens();
    t->set_sequence(row.sequence);
    t->set_index(row.index);
    t->set_id(row.token.id);
    t->set_logprob(row.token.logprob);
    t->set_ends(row.token.ends);
    t->set_by_length(row.token.ends_by_length);
    for (const auto& top : row.token.top) {
      auto* p = t->add_top();
      p->set_id(top.id);
      p->set_logprob(top.logprob);
    }
  }
  out.mutable_stage_us()->Add(result.stage_us.begin(), result.stage_us.end());
  return out.SerializeAsString();
}

} // namespace hexgen::actors
