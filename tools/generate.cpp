// hexgen generate: one completion over the fabric, streamed to the terminal.
#include "tools/answer_stream.hpp"
#include "tools/sampling_flags.hpp"
#include "tools/verbs.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <memory>

namespace hexgen::tools {
namespace {

struct generate_flags {
  std::string prompt;
  bool json = false, ignore_eos = false;
  client_flags client;
  sampling_flags sampling;
};

int generate(const generate_flags& f) {
  actors::fabric_session session(f.client.options(), f.client.address, std::chrono::seconds(5));
  nlohmann::json body{{"prompt", f.prompt}};
  if (f.ignore_eos)
    body["ignore_eos"] = true;
  f.sampling.fill(body);
  const auto a = stream_answer(session, "/v1/completions", body, !f.json);
  if (f.json) {
    const nlohmann::json out{{"text", a.text},
                             {"prompt_tokens", a.prompt_tokens},
                             {"completion_tokens", a.completion_tokens},
                             {"finish_reason", a.finish_reason},
                             {"first_token_s", a.first_token_s},
                             {"tokens_per_s", a.tokens_per_s()}};
    std::printf("%s\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    std::fputs("\n", stdout);
    std::fflush(stdout);
    std::fprintf(stderr, "%s\n", a.summary().c_str());
  }
  return 0;
}

} // namespace

void add_generate(CLI::App& app, action& chosen) {
  auto f = std::make_shared<generate_flags>();
  auto* verb = app.add_subcommand("generate", "Continue a text");
  with_environment(verb->add_option("--prompt", f->prompt, "The text"))->required();
  verb->add_flag("--ignore-eos", f->ignore_eos, "Go on after the model's end token");
  verb->add_flag("--json", f->json, "Print one JSON object at the end");
  f->client.add(*verb);
  f->sampling.add(*verb);
  verb->callback([f, &chosen] { chosen = [f] { return generate(*f); }; });
}

} // namespace hexgen::tools
