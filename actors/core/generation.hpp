// A generation as the gateway sees it: what is asked for, what comes back, and who serves it.
#pragma once

#include "compute/chat_template.hpp"
#include "compute/sampler.hpp"
#include "compute/tokenizer.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace hexgen::actors {

struct generation_request {
  std::string id;                        // "chatcmpl-…", for logs and errors
  std::vector<compute::token_id> prompt; // not empty
  compute::sampling_params params;       // `choice` is set by the router
  int choices = 1;                       // n
  /// Of an answer that began elsewhere: not sampled again and not delivered again. One choice.
  std::vector<compute::token_id> emitted;
  std::vector<std::string> stop; // stop strings: never part of the text
  bool skip_special_tokens = true;
  int priority = 0;            // smaller goes first
  double ttft_deadline_ms = 0; // 0: none
  double tpot_deadline_ms = 0;
};

struct generation_token {
  compute::token_id id = 0;
  float logprob = 0;
  std::vector<compute::token_logprob> top;
};

/// One delivery for one choice. `text` is whole UTF-8 and holds no half stop string. The last event
/// of a choice has a finish_reason or an error; nothing follows it.
struct generation_event {
  int choice = 0;
  std::string text;
  std::vector<generation_token> tokens;
  /// What the answer is made of since the last event: also tokens whose text is still held back.
  std::vector<compute::token_id> taken;
  std::string finish_reason; // "", "stop" or "length"
  int error_status = 0;      // HTTP status; 0: no error
  std::string error_message;
  int prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0; // of this choice, so far
  /// Wait before the first step, at the router and at the replica; < 0: not known.
  double queued_s = -1;
};

/// Refusal before anything was sent: 429 (full), 503 (nothing can serve), 400 (too long).
struct submit_refused {
  int status = 503;
  std::string code;
  std::string message;
  int retry_after_s = 1;
};

struct served_model {
  std::string name;
  int context = 0; // most tokens of a sequence (prompt + output)
  std::int64_t created_s = 0;
  std::shared_ptr<const compute::tokenizer> tokens;
  std::shared_ptr<const compute::chat_template> chat;
};

/// The router as the HTTP side sees it. Thread-safe; sinks are called from the router's thread and
/// must not block.
class generation_service {
public:
  virtual ~generation_service() = default;
  using sink = std::function<void(const generation_event&)>;
  using refused = std::function<void(const submit_refused&)>;
  /// Returns a ticket for cancel(). Exactly one of `refused` or a stream of events to `events`
  /// follows.
  virtual std::uint64_t submit(generation_request request, sink events, refused no) = 0;
  /// The client went: blocks are freed on every stage. Unknown tickets are fine.
  virtual void cancel(std::uint64_t ticket) = 0;
  /// nullptr while no model is known.
  [[nodiscard]] virtual std::shared_ptr<const served_model> model() const = 0;
  /// Empty when requests can be served, else what is missing (for /health 503).
  [[nodiscard]] virtual std::string not_ready() const = 0;
  /// JSON of /cluster.
  [[nodiscard]] virtual std::string cluster_json() const = 0;
  /// Prometheus text of the replicas' and links' figures, appended to the gateway's own.
  [[nodiscard]] virtual std::string metrics_text() const = 0;
};

} // namespace hexgen::actors
