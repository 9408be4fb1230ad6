// Where the answer to one API request goes: an HTTP connection, or a client on the fabric.
#pragma once

#include "compute/tokenizer.hpp"
#include "transport/http/http_server.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace hexgen::actors {

/// Calls come from any thread, one at a time (but `on_closed`'s callback may run beside one), and
/// return at once. Either `whole` once, or `open`, `data`…, `close`.
class reply_sink {
public:
  virtual ~reply_sink() = default;
  /// The whole answer, also an error's. After `open` it is an error of a stream: its body is sent
  /// as a payload, then "[DONE]", and the stream is closed.
  virtual void whole(transport::http_reply reply) = 0;
  /// The answer will be a stream, or an error instead: the sink may open itself, with these
  /// headers, to keep an impatient client.
  virtual void expect_stream(const transport::http_headers& headers) { (void)headers; }
  /// The stream begins. `headers` go with its head where there is one. Idempotent.
  virtual void open(const transport::http_headers& headers) = 0;
  /// One payload: a JSON text or "[DONE]". False: the client is gone.
  virtual bool data(std::string payload) = 0;
  /// The same with a number, by which the client may ask for what follows.
  virtual bool event(std::uint64_t number, std::string payload) {
    (void)number;
    return data(std::move(payload));
  }
  /// What the next payload is made of, for a sink that keeps it; `last`: the answer ends there.
  virtual void taken(const std::vector<compute::token_id>& ids, bool last) {
    (void)ids;
    (void)last;
  }
  virtual void close() = 0;
  /// Runs once when the client goes before the answer is complete (at once if it has gone).
  virtual void on_closed(std::function<void()> callback) = 0;
};

} // namespace hexgen::actors
