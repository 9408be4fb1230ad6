// One chat or completion request under way: its generations' events in, its answer out.
#pragma once

#include "actors/metrics/serving_metrics.hpp"
#include "actors/openai/completion_reply.hpp"
#include "actors/openai/completion_request.hpp"
#include "actors/openai/reply_sink.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>

namespace hexgen::actors {

struct api_error;

/// Thread-safe. Lives until its last generation has ended; cancels them when the client goes, when
/// one of them fails, and when it is abandoned.
class generation_job : public std::enable_shared_from_this<generation_job> {
public:
  generation_job(generation_service& service, serving_metrics& metrics, completion_request request,
                 reply_frame frame, transport::http_headers headers,
                 std::shared_ptr<reply_sink> sink, std::shared_ptr<std::atomic<int>> running);
  ~generation_job();

  void start();
  void abort(); // the client has gone

private:
  using clock = std::chrono::steady_clock;
  struct choice {
    reply_choice so_far;
    bool begun = false;
    bool ended = false;
    int completion_tokens = 0;
    clock::time_point last;
  };
  struct prompt {
    std::uint64_t ticket = 0;
    bool submitted = false;
    bool counted = false; // its end is in the metrics
    bool begun = false;
    int open_choices = 0;
    int prompt_tokens = 0;
    int cached_tokens = 0;
    double queued_s = -1;
    clock::time_point first, last;
  };

  void on_event(std::size_t prompt_index, const generation_event& event);
  void on_refused(std::size_t prompt_index, const submit_refused& why);
  // With the lock held:
  void take(std::size_t prompt_index, const generation_event& event);
  void note_times(prompt& from, choice& of, const generation_event& event);
  void stream(const generation_event& event, choice& of);
  void finish();
  void fail(const api_error& error);
  void count_end(std::size_t prompt_index, std::string_view reason);
  void end_all(std::string_view reason);
  [[nodiscard]] reply_usage usage() const;
  [[nodiscard]] std::vector<std::uint64_t> open_tickets() const;
  void cancel(const std::vector<std::uint64_t>& tickets); // without the lock

  generation_service& service_;
  serving_metrics& metrics_;
  const completion_request request_;
  const reply_frame frame_;
  const transport::http_headers headers_;
  const std::shared_ptr<reply_sink> sink_;
  const std::shared_ptr<std::atomic<int>> running_;
  const clock::time_point started_ = clock::now();
  const int per_prompt_;

  std::mutex mutex_; // guards what follows
  bool over_ = false;
  bool opened_ = false;
  std::vector<prompt> prompts_;
  std::vector<choice> choices_;
  std::size_t open_choices_ = 0;
};

} // namespace hexgen::actors
