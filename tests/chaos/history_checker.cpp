#include "tests/chaos/history_checker.hpp"

#include <algorithm>

namespace hexgen::tests {

bool history_checker::history::ended() const {
  return refused || silent ||
         std::all_of(choices.begin(), choices.end(), [](const auto& c) { return c.ended; });
}

void history_checker::violation(ticket t, int choice, const std::string& what, std::uint64_t at) {
  violations_.push_back("request " + std::to_string(t) + " choice " + std::to_string(choice) +
                        " at " + std::to_string(at) + " us: " + what);
}

void history_checker::submitted(ticket t, std::vector<std::vector<int>> expected,
                                std::vector<bool> by_length) {
  auto& h = histories_[t];
  for (std::size_t i = 0; i < expected.size(); ++i)
    h.choices.push_back({std::move(expected[i]), by_length[i], 0, {}, false});
}

void history_checker::refused(ticket t, int status, std::uint64_t at) {
  auto& h = histories_[t];
  const bool streamed = std::any_of(h.choices.begin(), h.choices.end(),
                                    [](const auto& c) { return c.received > 0 || c.ended; });
  if (h.refused || h.silent || streamed)
    violation(t, -1, "refused after it had been answered", at);
  if (status != 429 && status != 503)
    violation(t, -1, "refused with status " + std::to_string(status), at);
  h.refused = true;
  ++refusals_;
}

void history_checker::received(ticket t, int choice, const std::vector<int>& ids,
                               const std::string& text, const std::string& finish_reason,
                               int error_status, std::uint64_t at) {
  const auto it = histories_.find(t);
  if (it == histories_.end() || choice < 0 ||
      static_cast<std::size_t>(choice) >= it->second.choices.size()) {
    violation(t, choice, "an event for nobody", at);
    return;
  }
  auto& h = it->second;
  auto& c = h.choices[static_cast<std::size_t>(choice)];
  if (h.refused || h.silent)
    violation(t, choice, "an event after the end of the request", at);
  if (c.ended) {
    violation(t, choice, "an event after the last one", at);
    return;
  }
  for (const int id : ids) {
    if (c.received >= c.expected.size() || c.expected[c.received] != id) {
      violation(t, choice,
                "token " + std::to_string(c.received) + " is " + std::to_string(id) +
                    ", an undisturbed run has " +
                    (c.received < c.expected.size() ? std::to_string(c.expected[c.received])
                                                    : std::string("none")),
                at);
      c.ended = true; // one wrong token makes all later ones wrong
      return;
    }
    ++c.received;
  }
  c.text += text;
  if (error_status != 0) {
    violation(t, choice, "failed with status " + std::to_string(error_status), at);
    c.ended = true;
  } else if (!finish_reason.empty()) {
    if (c.received != c.expected.size())
      violation(t, choice,
                "ended after " + std::to_string(c.received) + " tokens of " +
                    std::to_string(c.expected.size()),
                at);
    if (finish_reason != (c.by_length ? "length" : "stop"))
      violation(t, choice, "ended for the wrong reason: " + finish_reason, at);
    c.ended = true;
    ++finished_;
  }
}

void history_checker::cancelled(ticket t) {
  histories_[t].silent = true;
}

void history_checker::connection_lost(ticket t) {
  histories_[t].silent = true;
}

std::size_t history_checker::open() const {
  return static_cast<std::size_t>(std::count_if(histories_.begin(), histories_.end(),
                                                [](const auto& h) { return !h.second.ended(); }));
}

void history_checker::close() {
  for (const auto& [t, h] : histories_)
    if (!h.ended())
      violation(t, -1, "never ended", 0);
}

} // namespace hexgen::tests
