// A generation_service that plays what a test says, and a byte-level model for it.
#pragma once

#include "actors/core/generation.hpp"
#include "actors/openai/reply_sink.hpp"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stdexcept>

namespace hexgen::tests {

/// One token per byte; 256 is BOS "<s>", 257 is EOS "</s>", 258 "<|im_end|>".
class api_tokenizer final : public compute::tokenizer {
public:
  std::vector<compute::token_id> encode(std::string_view text, bool parse_special,
                                        bool add_bos) const override {
    std::vector<compute::token_id> ids;
    if (add_bos)
      ids.push_back(256);
    constexpr std::string_view end = "<|im_end|>";
    while (!text.empty()) {
      if (parse_special && text.substr(0, end.size()) == end) {
        ids.push_back(258);
        text.remove_prefix(end.size());
        continue;
      }
      ids.push_back(static_cast<unsigned char>(text.front()));
      text.remove_prefix(1);
    }
    return ids;
  }
  std::string piece(compute::token_id id, bool skip_special) const override {
    if (id < 256)
      return std::string(1, static_cast<char>(id));
    return skip_special ? "" : id == 256 ? "<s>" : id == 257 ? "</s>" : "<|im_end|>";
  }
  int vocab() const override { return 259; }
  bool is_special(compute::token_id id) const override { return id >= 256; }
  compute::token_id bos() const override { return 256; }
  compute::token_id eos() const override { return 257; }
  std::span<const compute::token_id> end_ids() const override { return ends_; }
  const std::string& chat_template() const override { return none_; }

private:
  std::array<compute::token_id, 2> ends_{257, 258};
  std::string none_;
};

/// role:content<|im_end|>… and "assistant:" at the end.
class plain_chat final : public compute::chat_template {
public:
  std::string name() const override { return "plain"; }
  std::string render(const std::vector<compute::chat_message>& messages,
                     bool add_generation_prompt) const override {
    std::string text;
    for (const auto& one : messages) {
      if (one.role == "tool")
        throw std::invalid_argument("this template has no tool role");
      text += one.role + ":" + one.content + "<|im_end|>";
    }
    return add_generation_prompt ? text + "assistant:" : text;
  }
};

class fake_service final : public actors::generation_service {
public:
  fake_service() {
    auto m = std::make_shared<actors::served_model>();
    m->name = "fake";
    m->context = 512;
    m->created_s = 1700000000;
    m->tokens = std::make_shared<api_tokenizer>();
    m->chat = std::make_shared<plain_chat>();
    served = std::move(m);
  }

  std::uint64_t submit(actors::generation_request request, sink events, refused no) override {
    const auto ticket = next_++;
    {
      const std::lock_guard lock(mutex);
      requests.push_back(request);
      sinks[ticket] = events;
      refusals[ticket] = no;
    }
    if (on_submit)
      on_submit(ticket, request);
    return ticket;
  }
  void cancel(std::uint64_t ticket) override {
    {
      const std::lock_guard lock(mutex);
      cancelled.push_back(ticket);
    }
    drop(ticket);
  }
  std::shared_ptr<const actors::served_model> model() const override { return served; }
  std::string not_ready() const override { return missing; }
  std::string cluster_json() const override { return R"({"nodes":[],"epoch":7})"; }
  std::string metrics_text() const override { return "hexgen:fake 1\n"; }

  /// Plays one event to a ticket. Its text comes one token per byte unless tokens are given.
  void play(std::uint64_t ticket, actors::generation_event event) {
    sink to;
    {
      const std::lock_guard lock(mutex);
      const auto found = sinks.find(ticket);
      if (found == sinks.end())
        return;
      to = found->second;
    }
    if (event.tokens.empty())
      for (const char c : event.text)
        event.tokens.push_back({static_cast<unsigned char>(c), -0.5F, {}});
    if (event.taken.empty())
      for (const auto& t : event.tokens)
        event.taken.push_back(t.id);
    to(event);
  }
  void say(std::uint64_t ticket, std::string text, int so_far, std::string finish = {},
           int choice = 0) {
    actors::generation_event event;
    event.choice = choice;
    event.text = std::move(text);
    event.finish_reason = std::move(finish);
    event.prompt_tokens = 5;
    event.cached_tokens = 2;
    event.completion_tokens = so_far;
    play(ticket, event);
  }
  void refuse(std::uint64_t ticket, actors::submit_refused why) {
    const auto no = refusals.at(ticket);
    drop(ticket);
    no(why);
  }
  void drop(std::uint64_t ticket) {
    const std::lock_guard lock(mutex);
    sinks.erase(ticket);
    refusals.erase(ticket);
  }

  std::function<void(std::uint64_t, const actors::generation_request&)> on_submit;
  std::shared_ptr<const actors::served_model> served;
  std::string missing;
  std::mutex mutex;
  std::vector<actors::generation_request> requests;
  std::vector<std::uint64_t> cancelled;
  std::map<std::uint64_t, sink> sinks;
  std::map<std::uint64_t, refused> refusals;

private:
  std::uint64_t next_ = 1;
};

/// Records an answer.
class recorded_sink final : public actors::reply_sink {
public:
  void whole(transport::http_reply r) override {
    if (opened) {
      payloads.push_back(r.body);
      payloads.emplace_back("[DONE]");
      closed = true;
      return;
    }
    if (reply.status != 0)
      throw std::logic_error("two answers");
    reply = std::move(r);
  }
  void open(const transport::http_headers& h) override {
    opened = true;
    headers = h;
  }
  bool data(std::string payload) override {
    payloads.push_back(std::move(payload));
    return !gone;
  }
  bool event(std::uint64_t number, std::string payload) override {
    ids.push_back(number);
    return data(std::move(payload));
  }
  void close() override { closed = true; }
  void on_closed(std::function<void()> callback) override { hang_up = std::move(callback); }

  transport::http_reply reply{0, "", {}, ""};
  transport::http_headers headers;
  std::vector<std::string> payloads;
  std::vector<std::uint64_t> ids; // of those that have one
  std::function<void()> hang_up;
  bool opened = false, closed = false, gone = false;
};

} // namespace hexgen::tests
