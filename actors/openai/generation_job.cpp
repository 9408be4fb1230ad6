#include "actors/openai/generation_job.hpp"

#include "actors/openai/api_error.hpp"

#include <algorithm>

namespace hexgen::actors {

namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

} // namespace

generation_job::generation_job(generation_service& service, serving_metrics& metrics,
                               completion_request request, reply_frame frame,
                               transport::http_headers headers, std::shared_ptr<reply_sink> sink,
                               std::shared_ptr<std::atomic<int>> running)
    : service_(service), metrics_(metrics), request_(std::move(request)), frame_(std::move(frame)),
      headers_(std::move(headers)), sink_(std::move(sink)), running_(std::move(running)),
      per_prompt_(request_.prompts.front().choices) {
  prompts_.resize(request_.prompts.size());
  choices_.resize(prompts_.size() * static_cast<std::size_t>(per_prompt_));
  open_choices_ = choices_.size();
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    choices_[i].so_far.index = static_cast<int>(i);
    choices_[i].begun =
        !request_.prompts[i / static_cast<std::size_t>(per_prompt_)].emitted.empty();
    if (!request_.echo.empty() && !choices_[i].begun)
      choices_[i].so_far.text = request_.echo[i / static_cast<std::size_t>(per_prompt_)];
  }
  for (auto& one : prompts_)
    one.open_choices = per_prompt_;
  ++*running_;
}

generation_job::~generation_job() {
  --*running_;
}

void generation_job::start() {
  if (request_.stream)
    sink_->expect_stream(headers_);
  metrics_.submitted(static_cast<int>(prompts_.size()), per_prompt_,
                     request_.prompts.front().params.max_tokens);
  const auto me = shared_from_this();
  sink_->on_closed([weak = weak_from_this()] {
    if (const auto job = weak.lock())
      job->abort();
  });
  for (std::size_t i = 0; i < prompts_.size(); ++i) {
    {
      const std::lock_guard lock(mutex_);
      if (over_)
        return;
    }
    const auto ticket = service_.submit(
        request_.prompts[i], [me, i](const generation_event& event) { me->on_event(i, event); },
        [me, i](const submit_refused& why) { me->on_refused(i, why); });
    bool late = false;
    {
      const std::lock_guard lock(mutex_);
      prompts_[i].ticket = ticket;
      prompts_[i].submitted = true;
      late = over_ && prompts_[i].open_choices > 0; // ended before the ticket was known
    }
    if (late)
      service_.cancel(ticket);
  }
}

void generation_job::abort() {
  std::vector<std::uint64_t> tickets;
  {
    const std::lock_guard lock(mutex_);
    if (over_)
      return;
    tickets = open_tickets();
    end_all("abort");
  }
  cancel(tickets);
}

void generation_job::on_event(std::size_t prompt_index, const generation_event& event) {
  std::vector<std::uint64_t> tickets;
  {
    const std::lock_guard lock(mutex_);
    if (over_)
      return;
    take(prompt_index, event);
    if (over_)
      tickets = open_tickets();
  }
  cancel(tickets);
}

void generation_job::on_refused(std::size_t prompt_index, const submit_refused& why) {
  std::vector<std::uint64_t> tickets;
  {
    const std::lock_guard lock(mutex_);
    if (over_)
      return;
    auto& from = prompts_[prompt_index];
    const auto& asked = request_.prompts[prompt_index];
    from.open_choices = 0;
    from.counted = true;
    metrics_.refused(why.status, asked.ttft_deadline_ms > 0, asked.tpot_deadline_ms > 0);
    fail(error_of_status(why.status, why.code, why.message, why.retry_after_s));
    tickets = open_tickets();
  }
  cancel(tickets);
}

void generation_job::take(std::size_t prompt_index, const generation_event& event) {
  if (event.choice < 0 || event.choice >= per_prompt_)
    return;
  auto& from = prompts_[prompt_index];
  auto& of = choices_[prompt_index * static_cast<std::size_t>(per_prompt_) +
                      static_cast<std::size_t>(event.choice)];
  if (of.ended)
    return;
  if (event.error_status != 0) {
    of.ended = true;
    fail(error_of_status(event.error_status, {},
                         event.error_message + " (request " + frame_.id + ")", 1));
    return;
  }
  from.prompt_tokens = event.prompt_tokens;
  from.cached_tokens = event.cached_tokens;
  of.completion_tokens = event.completion_tokens;
  note_times(from, of, event);
  if (!event.finish_reason.empty()) {
    of.ended = true;
    --from.open_choices;
    --open_choices_;
  }
  if (request_.stream) {
    stream(event, of);
  } else {
    of.so_far.text += event.text;
    of.so_far.finish_reason = event.finish_reason;
    if (request_.logprobs || request_.token_ids)
      of.so_far.tokens.insert(of.so_far.tokens.end(), event.tokens.begin(), event.tokens.end());
  }
  of.begun = true;
  if (over_) // the client turned out to be gone
    return;
  if (from.open_choices == 0)
    count_end(prompt_index, event.finish_reason);
  if (open_choices_ == 0)
    finish();
}

void generation_job::note_times(prompt& from, choice& of, const generation_event& event) {
  const auto now = clock::now();
  const auto tokens = static_cast<int>(event.tokens.size());
  if (!from.begun) {
    from.begun = true;
    from.first = now;
    from.queued_s = event.queued_s;
    metrics_.first_token(seconds(now - started_), event.queued_s);
    metrics_.prefix_cache(event.prompt_tokens, event.cached_tokens);
    metrics_.tokens(event.prompt_tokens, 0);
  }
  if (of.begun && tokens > 0)
    metrics_.inter_token(seconds(now - of.last), tokens);
  metrics_.tokens(0, tokens);
  from.last = now;
  of.last = now;
}

void generation_job::stream(const generation_event& event, choice& of) {
  if (event.text.empty() && event.tokens.empty() && event.finish_reason.empty())
    return;
  if (!opened_) {
    opened_ = true;
    sink_->open(headers_);
  }
  reply_choice piece;
  piece.index = of.so_far.index;
  piece.first = !of.begun;
  piece.text = of.begun ? event.text : of.so_far.text + event.text; // an echo goes first
  piece.text_offset = of.so_far.text_offset;
  piece.finish_reason = event.finish_reason;
  if (request_.logprobs || request_.token_ids)
    piece.tokens = event.tokens;
  of.so_far.text_offset += piece.text.size();
  const auto so_far = usage();
  sink_->taken(event.taken, !event.finish_reason.empty());
  if (!sink_->data(chunk_json(frame_, piece, request_.continuous_usage ? &so_far : nullptr)))
    end_all("abort");
}

void generation_job::finish() {
  over_ = true;
  if (request_.stream) {
    if (request_.include_usage)
      sink_->data(usage_chunk_json(frame_, usage()));
    sink_->data("[DONE]");
    sink_->close();
    return;
  }
  std::vector<reply_choice> choices;
  for (auto& one : choices_)
    choices.push_back(std::move(one.so_far));
  auto first = prompts_.front().first;
  auto last = prompts_.front().last;
  for (const auto& one : prompts_) {
    first = std::min(first, one.first);
    last = std::max(last, one.last);
  }
  const auto total = usage();
  reply_times times;
  times.time_to_first_token_ms = seconds(first - started_) * 1e3;
  times.generation_time_ms = seconds(last - first) * 1e3;
  if (last > started_)
    times.tokens_per_second = total.completion_tokens / seconds(last - started_);
  transport::http_reply reply;
  reply.headers = headers_;
  reply.body = whole_json(frame_, choices, total, times);
  sink_->whole(std::move(reply));
}

void generation_job::fail(const api_error& error) {
  end_all("error");
  auto reply = error_reply(error);
  reply.headers.insert(reply.headers.end(), headers_.begin(), headers_.end());
  sink_->whole(std::move(reply));
}

void generation_job::count_end(std::size_t prompt_index, std::string_view reason) {
  auto& from = prompts_[prompt_index];
  if (from.counted)
    return;
  from.counted = true;
  const auto& asked = request_.prompts[prompt_index];
  serving_metrics::finished end;
  end.reason = reason;
  end.saw_first_token = from.begun;
  end.queued_s = from.queued_s;
  end.prompt_tokens = from.prompt_tokens;
  const auto first = prompt_index * static_cast<std::size_t>(per_prompt_);
  for (int c = 0; c < per_prompt_; ++c) {
    const int tokens = choices_[first + static_cast<std::size_t>(c)].completion_tokens;
    end.generated_tokens += tokens;
    end.longest_choice = std::max(end.longest_choice, tokens);
  }
  const bool served = from.begun && reason != "error";
  if (from.begun) {
    end.e2e_s = seconds(from.last - started_);
    end.decode_s = seconds(from.last - from.first);
  }
  if (reason != "abort") { // a client that leaves says nothing about deadlines
    const double ttft_ms = seconds(from.first - started_) * 1e3;
    const int per_choice = std::max(1, end.generated_tokens / per_prompt_ - 1);
    if (asked.ttft_deadline_ms > 0)
      end.ttft_slo = served && ttft_ms <= asked.ttft_deadline_ms;
    if (asked.tpot_deadline_ms > 0)
      end.tpot_slo = served && end.decode_s * 1e3 / per_choice <= asked.tpot_deadline_ms;
  }
  metrics_.done(end);
}

void generation_job::end_all(std::string_view reason) {
  over_ = true;
  for (std::size_t i = 0; i < prompts_.size(); ++i)
    count_end(i, reason);
}

reply_usage generation_job::usage() const {
  reply_usage total;
  for (const auto& one : prompts_) {
    total.prompt_tokens += one.prompt_tokens;
    total.cached_tokens += one.cached_tokens;
  }
  for (const auto& one : choices_)
    total.completion_tokens += one.completion_tokens;
  return total;
}

std::vector<std::uint64_t> generation_job::open_tickets() const {
  std::vector<std::uint64_t> tickets;
  for (const auto& one : prompts_)
    if (one.submitted && one.open_choices > 0)
      tickets.push_back(one.ticket);
  return tickets;
}

void generation_job::cancel(const std::vector<std::uint64_t>& tickets) {
  for (const auto ticket : tickets)
    service_.cancel(ticket);
}

} // namespace hexgen::actors
