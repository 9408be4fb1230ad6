// hexgen chat: a conversation over the fabric, streamed to the terminal.
#include "tools/answer_stream.hpp"
#include "tools/sampling_flags.hpp"
#include "tools/verbs.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>

namespace hexgen::tools {
namespace {

struct chat_flags {
  std::string message, system;
  bool stats = false;
  client_flags client;
  sampling_flags sampling;
};

int chat(const chat_flags& f) {
  actors::fabric_session session(f.client.options(), f.client.address, std::chrono::seconds(5));
  nlohmann::json messages = nlohmann::json::array();
  if (!f.system.empty())
    messages.push_back({{"role", "system"}, {"content", f.system}});
  const bool once = !f.message.empty();
  std::string line = f.message;
  for (;;) {
    if (!once) {
      if (::isatty(STDIN_FILENO) != 0)
        std::fputs("> ", stdout);
      std::fflush(stdout);
      if (!std::getline(std::cin, line))
        return 0;
      if (line.empty())
        continue;
      if (line == "/quit" || line == "/exit")
        return 0;
    }
    messages.push_back({{"role", "user"}, {"content", line}});
    nlohmann::json body{{"messages", messages}};
    f.sampling.fill(body);
    const auto a = stream_answer(session, "/v1/chat/completions", body, true);
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (f.stats)
      std::fprintf(stderr, "%s\n", a.summary().c_str());
    if (once)
      return 0;
    messages.push_back({{"role", "assistant"}, {"content", a.text}});
  }
}

} // namespace

void add_chat(CLI::App& app, action& chosen) {
  auto f = std::make_shared<chat_flags>();
  auto* verb = app.add_subcommand(
      "chat", "Talk to the model: one MESSAGE, or without it a conversation (/quit ends it)");
  verb->add_option("MESSAGE", f->message, "What to say");
  with_environment(verb->add_option("--system", f->system, "System message"));
  verb->add_flag("--stats", f->stats, "Print counts and rate after each answer");
  f->client.add(*verb);
  f->sampling.add(*verb);
  verb->callback([f, &chosen] { chosen = [f] { return chat(*f); }; });
}

} // namespace hexgen::tools
