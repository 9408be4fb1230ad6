#include "actors/core/served_model.hpp"

#include "transport/proto/hexgen.pb.h"

namespace hexgen::actors::wire {

void write(const model_reference& from, proto::model_reference& to) {
  to.set_name(from.name);
  to.set_source(from.source);
  to.set_bytes(from.bytes);
  to.set_digest(from.digest);
}

void write(const serve_settings& from, proto::serve_settings& to) {
  to.set_kernels(from.kernels);
  to.set_kv_type(from.kv_type);
  to.set_max_sequence(from.max_sequence);
  to.set_max_step_tokens(from.max_step_tokens);
  to.set_heartbeat_ms(from.heartbeat_ms);
  to.set_suspect_ms(from.suspect_ms);
  to.set_gone_ms(from.gone_ms);
  to.set_deterministic(from.deterministic);
  to.set_prefix_cache(from.prefix_cache);
  to.set_max_running(from.max_running);
  to.set_max_queued(from.max_queued);
  to.set_draft_tokens(from.draft_tokens);
  to.set_stage_recovery(from.stage_recovery);
}

model_reference read(const proto::model_reference& from) {
  return {from.name(), from.source(), from.bytes(), from.digest()};
}

serve_settings read(const proto::serve_settings& from) {
  return {from.kernels(),       from.kv_type(),     from.max_sequence(), from.max_step_tokens(),
          from.heartbeat_ms(),  from.suspect_ms(),  from.gone_ms(),      from.deterministic(),
          from.prefix_cache(),  from.max_running(), from.max_queued(),   from.draft_tokens(),
          from.stage_recovery()};
}

} // namespace hexgen::actors::wire
