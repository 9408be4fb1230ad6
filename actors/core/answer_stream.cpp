#include "actors/core/answer_stream.hpp"

#include <utility>

namespace hexgen::actors {

answer_stream::answer_stream(std::shared_ptr<const compute::tokenizer> tokens,
                             std::vector<std::string> stop, bool skip_special, int min_tokens)
    : tokens_(std::move(tokens)), stops_(std::move(stop)), skip_special_(skip_special),
      min_tokens_(min_tokens) {}

void answer_stream::push(const compute::sampled_token& token, output& out) {
  if (finished_)
    return;
  ++taken_;
  const bool ends_by_id = token.ends && !token.ends_by_length;
  // An end or stop id is no part of the text.
  const std::string piece = ends_by_id ? std::string() : tokens_->piece(token.id, skip_special_);
  const std::string text = characters_.push(piece);
  const std::size_t begin = made_;
  made_ += text.size();
  // A token that ends in half a character waits for the rest of it.
  const std::size_t end = made_ + (text.empty() && !piece.empty() ? 1 : 0);
  waiting_.push_back({{token.id, token.logprob, token.top}, begin, end});
  const std::string shown = taken_ < min_tokens_ ? text : stops_.push(text);
  shown_ += shown.size();
  out.text += shown;
  if (stops_.stopped())
    finish("stop", out);
  else if (token.ends)
    finish(ends_by_id ? "stop" : "length", out);
  else
    release(out);
}

void answer_stream::release(output& out) {
  while (!waiting_.empty() && waiting_.front().end <= shown_) {
    out.tokens.push_back(std::move(waiting_.front().token));
    waiting_.pop_front();
  }
}

void answer_stream::finish(const char* reason, output& out) {
  finished_ = true;
  out.finish_reason = reason;
  if (!stops_.stopped()) {
    std::string rest = stops_.push(characters_.finish());
    if (stops_.stopped())
      out.finish_reason = "stop";
    else
      rest += stops_.finish();
    shown_ += rest.size();
    out.text += rest;
  }
  // Tokens of a stop string are not shown, except one that also holds text before it.
  for (auto& w : waiting_)
    if (!stops_.stopped() || w.begin < shown_)
      out.tokens.push_back(std::move(w.token));
  waiting_.clear();
}

} // namespace hexgen::actors
